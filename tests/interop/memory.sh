#!/usr/bin/env bash
# Memory and files are bounded. A blob of 1 GiB goes up and comes down over TLS, by HTTP/1.1 and by HTTP/2; then come
# those who ask for much and take none of it, or send much and do not end, and a good client is served beside them:
# for five seconds each, in `make test-full` for ten.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

blob_mib=1024
resident_mib_max=64
# Under attack, for each of the servers. The files are a client's quarter of the 4096 that blobs are read from, and what
# connections and the database take.
attacked_mib_max=128
attacked_files_max=1200
attack_secs=5
[[ -z ${BERTH_FULL:-} ]] || attack_secs=10

prepare() {
    need curl curl
    need jq jq
    need_binaries
    need_programs load
}

enter_sandbox prepare

port=$(free_port)
registry=https://$host:$port
data=$scratch/data
blob=$scratch/blob
password='a password'

init() {
    BERTH_DATA=$data BERTH_CERTS=$scratch/certs BERTH_HOST=$host BERTH_PORT=$port BERTH_PASSWORD=$password \
        "$bin/authctl" init
}

request() { curl --silent --show-error --fail --cacert "$scratch/certs/ca.pem" "$@"; }

token() {
    request --user "andrew:$password" "$registry/token?service=berth&scope=repository:big/blob:pull,push" |
        jq --raw-output .token
}

location_of() { tr --delete '\r' | sed --quiet 's/^[Ll]ocation: //p'; }

# push HTTP: begin, one streamed PATCH, commit, as docker does it.
push() {
    local bearer location
    bearer="Authorization: Bearer $(token)"
    location=$(request "$1" -X POST -D - -H "$bearer" "$registry/v2/big/blob/blobs/uploads/" | location_of)
    request "$1" -X PATCH -H "$bearer" -H 'Content-Type: application/octet-stream' -T "$blob" -o /dev/null \
        "$registry$location"
    request "$1" -X PUT -H "$bearer" "$registry$location?digest=$digest"
}

pull() {
    local got
    got=$(request "$1" -H "Authorization: Bearer $(token)" "$registry/v2/big/blob/blobs/$digest" | sha256sum)
    [[ sha256:${got%% *} == "$digest" ]]
}

# resident NAME: the most that the process has held in memory, in MiB.
resident() { awk '/^VmHWM/ { printf "%.1f", $2 / 1024 }' "/proc/${pid_of[$1]}/status"; }

within_bounds() {
    local name mib
    for name in registry-server auth-server; do
        mib=$(resident "$name")
        awk "BEGIN { exit !($mib < $resident_mib_max) }" || fail "$name held $mib MiB"
        ok "$name held $mib MiB at most; $resident_mib_max are allowed"
    done
}

# ----------------------------------------------------------------

succeeds "authctl init" init
start auth-server "$bin/auth-server" --config "$data/auth.toml"
start registry-server "$bin/registry-server" --config "$data/registry.toml"
wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
head -c "$((blob_mib * 1024 * 1024))" /dev/urandom >"$blob"
for http in --http1.1 --http2; do
    # Other content each time, so that the second push is stored as well.
    printf '%s' "$http" | dd of="$blob" conv=notrunc status=none
    digest=sha256:$(sha256sum "$blob" | cut --delimiter ' ' --fields 1)
    succeeds "push of $blob_mib MiB, curl $http" push "$http"
    succeeds "pull of $blob_mib MiB, curl $http" pull "$http"
done
within_bounds
stop registry-server
stop auth-server
rm "$blob"

# attacked LOAD-ARGUMENTS...: servers of their own for each. No client comes from the loopback.
attacked() {
    "$programs/load" --bin "$bin" --data "$scratch" --listen "$host_address" --served --secs "$attack_secs" \
        --memory-mib-max "$attacked_mib_max" --files-max "$attacked_files_max" "$@" ||
        fail "memory, files or a good client under attack"
}

# Who takes all connections of a network keeps out that network: the good client comes from another.
good_address=192.0.2.10
ip address add "$good_address/32" dev lo
attacked --good-from "$good_address" idle1024 a1-silent a1-window
attacked a3-manifests a3-blobs a3-referrers100 a3-puts a3-size

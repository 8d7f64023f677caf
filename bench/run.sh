#!/usr/bin/env bash
# `make bench`: Berth beside nginx (TLS, htpasswd) in front of Debian's docker-registry, in the same
# run and in turns, so that the ratio holds when the machine's speed drifts.
# Needs root on Debian for missing packages; everything listens on loopback.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
# shellcheck source=bench/lib.sh
. bench/lib.sh

readonly PUSHES=${BENCH_PUSHES:-5} PULLS=${BENCH_PULLS:-5} LOADS=${BENCH_LOADS:-3}
readonly LOAD_SECONDS=${BENCH_LOAD_SECONDS:-8} BLOB_MIB=${BENCH_BLOB_MIB:-1024}
readonly BIN=target/release USER_NAME=andrew PASSWORD=bench-password

# Every pushed blob stays until the end.
free_mib=$(df --output=avail -m "${TMPDIR:-/tmp}" | tail -1)
needed_mib=$(((3 * PUSHES + 4) * BLOB_MIB))
if [ "$free_mib" -lt "$needed_mib" ]; then
    echo "make bench needs $needed_mib MiB in ${TMPDIR:-/tmp}, and $free_mib are free" >&2
    exit 1
fi

start_berth() {
    export BERTH_DATA=$work/data BERTH_CERTS=$work/certs BERTH_HOST=localhost
    BERTH_PORT=$(free_port)
    export BERTH_PORT BERTH_USER=$USER_NAME BERTH_PASSWORD=$PASSWORD
    "$BIN/authctl" init --listen "127.0.0.1:$BERTH_PORT" >/dev/null
    sed -i 's/^log = .*/log = "warn"/' "$work/data/auth.toml" "$work/data/registry.toml"
    "$BIN/auth-server" --config "$work/data/auth.toml" 2>"$work/auth.log" &
    pids+=($!) auth_pid=$!
    "$BIN/registry-server" --config "$work/data/registry.toml" 2>"$work/registry.log" &
    pids+=($!) registry_pid=$!
    berth=https://localhost:$BERTH_PORT
    until "$BIN/registry-server" --config "$work/data/registry.toml" health 2>/dev/null; do sleep 0.1; done
}

start_peer() {
    local backend front
    backend=$(free_port) front=$(free_port)
    htpasswd -Bbc "$work/htpasswd" "$USER_NAME" "$PASSWORD" 2>/dev/null
    cat >"$work/peer.yml" <<YML
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/peer}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$backend", relativeurls: true}
YML
    cat >"$work/nginx.conf" <<CONF
daemon off; pid $work/nginx.pid; error_log $work/nginx.log; worker_processes auto;
events { worker_connections 512; }
http {
    access_log off; client_body_temp_path $work/body; proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/f; uwsgi_temp_path $work/u; scgi_temp_path $work/s;
    upstream registry { server 127.0.0.1:$backend; }
    server {
        listen 127.0.0.1:$front ssl http2;
        ssl_certificate $work/certs/server.pem; ssl_certificate_key $work/certs/server.key;
        client_max_body_size 0; chunked_transfer_encoding on;
        location /v2/ {
            auth_basic "registry"; auth_basic_user_file $work/htpasswd;
            proxy_pass http://registry; proxy_set_header Host \$http_host;
            proxy_set_header X-Forwarded-Proto \$scheme; proxy_read_timeout 900;
        }
    }
}
CONF
    chmod 755 "$work" && chmod 644 "$work/htpasswd"
    docker-registry serve "$work/peer.yml" >"$work/peer.log" 2>&1 &
    pids+=($!)
    nginx -c "$work/nginx.conf" 2>>"$work/nginx.log" &
    pids+=($!)
    peer=https://localhost:$front
    until_answers "$peer/v2/"
}

# Credentials as curl options: a bearer token for Berth, Basic for the peer.
credentials() { # berth|peer
    if [ "$1" = peer ]; then
        auth=(-u "$USER_NAME:$PASSWORD") base=$peer
    else
        local token
        token=$(curl -sS --cacert "$work/certs/ca.pem" -u "$USER_NAME:$PASSWORD" \
            "$berth/token?service=berth&scope=repository:bench/app:pull,push" | jq -r .token)
        auth=(-H "Authorization: Bearer $token") base=$berth
    fi
}

request() { curl -sS --fail --cacert "$work/certs/ca.pem" "${auth[@]}" "$@"; }

# Uploads a file as docker does, POST PATCH PUT, and prints the seconds that it took.
push() { # berth|peer, file, digest, curl's protocol option
    credentials "$1"
    local location begun
    begun=$EPOCHREALTIME
    location=$(request "$4" -X POST -D - -o /dev/null "$base/v2/bench/app/blobs/uploads/" |
        tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    location=$(request "$4" -X PATCH -D - -o /dev/null -H 'Content-Type: application/octet-stream' \
        -T "$2" "$base$location" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    case $location in *\?*) location="$location&digest=$3" ;; *) location="$location?digest=$3" ;; esac
    request "$4" -X PUT -o /dev/null "$base$location"
    awk "BEGIN { print $EPOCHREALTIME - $begun }"
}

pull() { # berth|peer, digest
    credentials "$1"
    request --http1.1 -o /dev/null -w '%{time_total}\n' "$base/v2/bench/app/blobs/$2"
}

load() { # berth|peer
    credentials "$1"
    local header
    header=${auth[1]}
    [ "$1" = berth ] || header="Authorization: Basic $(printf %s "$USER_NAME:$PASSWORD" | base64)"
    wrk -t2 -c32 -d"${LOAD_SECONDS}s" -H "$header" \
        -H "Accept: application/vnd.docker.distribution.manifest.v2+json" \
        "$base/v2/bench/app/manifests/v1" >"$work/wrk.out"
    if grep -q 'Non-2xx' "$work/wrk.out"; then
        echo "requests failed under load" >&2
        return 1
    fi
    sed -n 's/^Requests\/sec: *//p' "$work/wrk.out"
}

median() { printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

put_manifest() { # berth|peer, digest of a blob there
    credentials "$1"
    local descriptor="\"digest\":\"$2\",\"size\":$((BLOB_MIB * 1024 * 1024))"
    printf '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s",%s},"layers":[{"mediaType":"%s",%s}]}' \
        application/vnd.docker.distribution.manifest.v2+json application/vnd.docker.container.image.v1+json \
        "$descriptor" application/vnd.docker.image.rootfs.diff.tar.gzip "$descriptor" |
        request -X PUT -o /dev/null --data-binary @- \
            -H 'Content-Type: application/vnd.docker.distribution.manifest.v2+json' \
            "$base/v2/bench/app/manifests/v1"
}

row() { # what, unit, higher|lower is better, berth's median, the peer's
    local ratio
    if [ "$3" = lower ]; then ratio="$5 / $4"; else ratio="$4 / $5"; fi
    awk -v what="$1" -v unit="$2" -v a="$4" -v b="$5" \
        "BEGIN { printf \"| %s | %.2f %s | %.2f %s | %.1f× |\n\", what, a, unit, b, unit, $ratio }"
}

peak_mib() { awk '/VmHWM/ { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }

for pair in curl:curl jq:jq wrk:wrk nginx:nginx-light docker-registry:docker-registry \
    htpasswd:apache2-utils python3:python3; do
    need "${pair%%:*}" "${pair##*:}"
done
[ -x "$BIN/registry-server" ] || cargo build --release --locked
start_berth
start_peer

blob=$work/blob
head -c "$((BLOB_MIB * 1024 * 1024))" /dev/urandom >"$blob"
declare -A pushed
pushes_berth=() pushes_http2=() pushes_peer=() pulls_berth=() pulls_peer=() loads_berth=() loads_peer=()

for round in $(seq "$PUSHES"); do
    for who in berth http2 peer; do
        # Other content each time: what is there already would not be stored again.
        printf '%s %s' "$round" "$who" | dd of="$blob" conv=notrunc status=none
        digest=sha256:$(sha256sum "$blob" | cut -d' ' -f1)
        case $who in
            http2) took=$(push berth "$blob" "$digest" --http2); pushes_http2+=("$took") ;;
            berth) took=$(push berth "$blob" "$digest" --http1.1); pushes_berth+=("$took") ;;
            peer) took=$(push peer "$blob" "$digest" --http1.1); pushes_peer+=("$took") ;;
        esac
        pushed[$who]=$digest
    done
    echo "push $round of $PUSHES: Berth ${pushes_berth[-1]} s, over HTTP/2 ${pushes_http2[-1]} s, peer ${pushes_peer[-1]} s" >&2
done
for round in $(seq "$PULLS"); do
    took=$(pull berth "${pushed[berth]}"); pulls_berth+=("$took")
    took=$(pull peer "${pushed[peer]}"); pulls_peer+=("$took")
    echo "pull $round of $PULLS: Berth ${pulls_berth[-1]} s, peer ${pulls_peer[-1]} s" >&2
done
put_manifest berth "${pushed[berth]}"
put_manifest peer "${pushed[peer]}"
for round in $(seq "$LOADS"); do
    took=$(load berth); loads_berth+=("$took")
    took=$(load peer); loads_peer+=("$took")
    echo "load $round of $LOADS: Berth ${loads_berth[-1]}/s, peer ${loads_peer[-1]}/s" >&2
done

{
    echo "# Results of the last \`make bench\`"
    echo
    echo "Medians of $PUSHES pushes, $PULLS pulls and $LOADS loads, taken in turns in one run."
    echo "The peer is $(nginx -v 2>&1 | cut -d/ -f2 | sed 's/^/nginx /') with TLS and htpasswd (bcrypt, cost 5) in front of docker-registry $(docker-registry --version | awk '{ print $3 }')."
    echo "Berth syncs every blob to the disk before it answers; the peer does not."
    echo
    machine
    echo "The clients run on the same machine."
    echo
    echo "| what | Berth | nginx and docker-registry | Berth is ahead by |"
    echo "|---|---|---|---|"
    row "push of $BLOB_MIB MiB over TLS, HTTP/1.1" s lower "$(median "${pushes_berth[@]}")" "$(median "${pushes_peer[@]}")"
    row "pull of $BLOB_MIB MiB over TLS" s lower "$(median "${pulls_berth[@]}")" "$(median "${pulls_peer[@]}")"
    row "manifest by tag, signed in, 32 connections" /s higher "$(median "${loads_berth[@]}")" "$(median "${loads_peer[@]}")"
    echo
    row "push of $BLOB_MIB MiB to Berth, HTTP/1.1 and HTTP/2" s higher "$(median "${pushes_berth[@]}")" "$(median "${pushes_http2[@]}")" |
        awk -F'|' '{ print "The same push to Berth over HTTP/2 took" $4 "(HTTP/1.1:" $3 ")." }'
    echo
    echo "Largest resident memory over the whole run: registry-server $(peak_mib "$registry_pid") MiB, auth-server $(peak_mib "$auth_pid") MiB."
    bench/tokens.sh
    bench/durability.sh
    bench/collection.sh
} | tee bench/RESULTS.md

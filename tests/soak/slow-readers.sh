#!/usr/bin/env bash
# Ten minutes of pulls at 1 KB/s by HTTP/1.1 and HTTP/2 that must go on, beside readers that stopped, which must end.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/../interop/lib.sh"

minutes=${BERTH_MINUTES:-10}
# What buffers may hold of an answer, and be ahead with, is a small part of it.
blob_mib=64
repository=team/slow

prepare() {
    need curl curl
    need jq jq
    need openssl openssl
    need_binaries
}

enter_sandbox prepare

# shellcheck source=tests/interop/stack.sh
. "$root/tests/interop/stack.sh"

as_andrew() { curl_berth andrew "$andrew_password" "repository:$repository:pull,push" --fail --show-error "$@"; }

push_blob() {
    as_andrew --header 'Content-Type: application/octet-stream' --data-binary "@$scratch/blob" \
        "https://$registry/v2/$repository/blobs/uploads/?digest=$digest"
}

token() {
    curl --silent --fail --cacert "$certs/ca.pem" --user "andrew:$andrew_password" --get \
        --data-urlencode service=berth --data-urlencode "scope=repository:$repository:pull" "https://$registry/token" |
        jq --raw-output .token
}

start_dead_reader() {
    mkfifo "$scratch/dead"
    exec 3<>"$scratch/dead"
    start dead-reader openssl s_client -quiet -connect "$registry" -CAfile "$certs/ca.pem" <"$scratch/dead"
    printf 'GET /v2/%s/blobs/%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n' \
        "$repository" "$digest" "$registry" "$(token)" >&3
    # Its log is what it reads.
    wait_for 20 "the dead reader to read something" test -s "$scratch/logs/dead-reader.log"
    kill -STOP "${pid_of[dead-reader]}"
}

# Sockets of the server that are established, by the port of Berth in hexadecimal.
open_connections() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port=":$(printf %04X "$port")" '$2 ~ port "$" && $4 == "01"' | wc -l
}

only_slow_ones() { (($(open_connections) <= 2)); }

start_berth
head -c "$((blob_mib * 1024 * 1024))" /dev/urandom >"$scratch/blob"
digest=sha256:$(sha256sum "$scratch/blob" | cut --delimiter ' ' --fields 1)
succeeds "a blob of $blob_mib MiB" push_blob
for http in 1.1 2; do
    start "slow-$http" as_andrew "--http$http" --limit-rate 1k --output /dev/null \
        "https://$registry/v2/$repository/blobs/$digest"
done
start_dead_reader
note "$minutes minutes"
sleep "$((minutes * 60))"
for http in 1.1 2; do
    kill -0 "${pid_of[slow-$http]}" || fail "HTTP/$http at 1 KB/s was cut off"
    ok "HTTP/$http at 1 KB/s goes on after $minutes minutes"
done
wait_for 120 "the dead reader's connection to end" only_slow_ones
ok "a reader that stopped is ended"

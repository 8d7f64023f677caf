#!/usr/bin/env bash
# `make bench-versions BEFORE=DIRECTORY`: two builds of Berth beside each other, in turns in one run.
# The build of before runs twice, as two registries: what those two differ by is what the machine alone makes.
# BEFORE and AFTER (target/release) are directories that hold auth-server, registry-server and authctl.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
# shellcheck source=bench/lib.sh
. bench/lib.sh

readonly BEFORE=${BEFORE:?a directory with the programs to compare with} AFTER=${AFTER:-target/release}
readonly ROUNDS=${BENCH_ROUNDS:-5} BLOB_MIB=${BENCH_BLOB_MIB:-512} LOAD_SECONDS=${BENCH_LOAD_SECONDS:-5}
readonly SMALL=${BENCH_SMALL:-300} PASSWORD=bench-password
readonly sites=(before again after)

for pair in curl:curl jq:jq wrk:wrk python3:python3; do need "${pair%%:*}" "${pair##*:}"; done

declare -A bin_of=([before]=$BEFORE [again]=$BEFORE [after]=$AFTER) base_of=() pids_of=()

start_site() { # site
    local bin=${bin_of[$1]} port
    port=$(free_port)
    BERTH_DATA=$work/$1 BERTH_CERTS=$work/$1/certs BERTH_HOST=localhost BERTH_PORT=$port BERTH_PASSWORD=$PASSWORD \
        BERTH_USER=andrew "$bin/authctl" init --listen "127.0.0.1:$port" >/dev/null
    sed -i 's/^log = .*/log = "warn"/' "$work/$1/auth.toml" "$work/$1/registry.toml"
    "$bin/auth-server" --config "$work/$1/auth.toml" 2>"$work/$1-auth.log" &
    pids+=($!) pids_of[$1]=$!
    "$bin/registry-server" --config "$work/$1/registry.toml" 2>"$work/$1-registry.log" &
    pids+=($!) pids_of[$1]+=" $!"
    base_of[$1]=https://localhost:$port
    until "$bin/registry-server" --config "$work/$1/registry.toml" health 2>/dev/null; do sleep 0.1; done
}

token() { # site
    curl -sS --fail --cacert "$work/$1/certs/ca.pem" -u "andrew:$PASSWORD" \
        "${base_of[$1]}/token?service=berth&scope=repository:bench/app:pull,push" | jq -r .token
}

request() { # site, curl's arguments...
    local site=$1
    shift
    curl -sS --fail --cacert "$work/$site/certs/ca.pem" -H "Authorization: Bearer ${token_of[$site]}" "$@"
}

push() { # site, file, curl's protocol option: as docker does it, POST PATCH PUT; prints seconds
    local location begun digest
    printf '%s %s' "$RANDOM" "$EPOCHREALTIME" | dd of="$2" conv=notrunc status=none
    digest=sha256:$(sha256sum "$2" | cut -d' ' -f1)
    echo "$digest" >"$work/$1/digest"
    begun=$EPOCHREALTIME
    location=$(request "$1" "$3" -X POST -D - -o /dev/null "${base_of[$1]}/v2/bench/app/blobs/uploads/" |
        tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    request "$1" "$3" -X PATCH -o /dev/null -H 'Content-Type: application/octet-stream' -T "$2" "${base_of[$1]}$location"
    request "$1" "$3" -X PUT -o /dev/null "${base_of[$1]}$location?digest=$digest"
    awk "BEGIN { print $EPOCHREALTIME - $begun }"
}

pull() { # site, curl's protocol option
    request "$1" "$2" -o /dev/null -w '%{time_total}\n' "${base_of[$1]}/v2/bench/app/blobs/$(<"$work/$1/digest")"
}

small_pushes() { # site: blobs of 4 KiB a second, one after the other on one connection
    python3 - "${base_of[$1]##*:}" "$work/$1/certs/ca.pem" "${token_of[$1]}" "$SMALL" <<'PY'
import hashlib, http.client, os, ssl, sys, time

port, ca, token, count = sys.argv[1:]
connection = http.client.HTTPSConnection("localhost", int(port), context=ssl.create_default_context(cafile=ca))

def ask(method, path, body=None):
    connection.request(method, path, body, {"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status < 300, (answer.status, text)
    return answer.headers.get("location")

blobs = [os.urandom(4096) for _ in range(int(count))]
begun = time.monotonic()
for blob in blobs:
    location = ask("POST", "/v2/bench/app/blobs/uploads/")
    ask("PUT", f"{location}?digest=sha256:{hashlib.sha256(blob).hexdigest()}", blob)
print(int(count) / (time.monotonic() - begun))
PY
}

load() { # site, connections, path, header: answers a second
    wrk -t2 -c"$2" -d"${LOAD_SECONDS}s" --timeout 30s -H "$4" "${base_of[$1]}$3" >"$work/wrk.out"
    if grep -q 'Non-2xx\|Socket errors' "$work/wrk.out"; then
        cat "$work/wrk.out" >&2
        return 1
    fi
    sed -n 's/^Requests\/sec: *//p' "$work/wrk.out"
}

# One upload in one request, for what the loads ask for.
upload() { # site, file
    local digest location
    digest=sha256:$(sha256sum "$2" | cut -d' ' -f1)
    location=$(request "$1" -X POST -D - -o /dev/null "${base_of[$1]}/v2/bench/app/blobs/uploads/" |
        tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    request "$1" -X PUT -T "$2" -H 'Content-Type: application/octet-stream' "${base_of[$1]}$location?digest=$digest"
    echo "$digest"
}

manifest_type=application/vnd.oci.image.manifest.v1+json
put_manifest() { # site, digest, size
    local descriptor="\"digest\":\"$2\",\"size\":$3"
    printf '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s",%s},"layers":[]}' \
        "$manifest_type" application/vnd.oci.image.config.v1+json "$descriptor" |
        request "$1" -X PUT -o /dev/null --data-binary @- -H "Content-Type: $manifest_type" \
            "${base_of[$1]}/v2/bench/app/manifests/v1"
}

peak_mib() { # site: what its two processes held at most, together
    local pid
    for pid in ${pids_of[$1]}; do cat "/proc/$pid/status"; done | awk '/VmHWM/ { kib += $2 } END { printf "%.1f", kib / 1024 }'
}

declare -A token_of=()
large=$work/large small=$work/small mib=$work/mib eight=$work/eight
head -c "$((BLOB_MIB * 1024 * 1024))" /dev/urandom >"$large"
head -c 10240 /dev/urandom >"$small"
head -c 1048576 /dev/urandom >"$mib"
head -c 8388608 /dev/urandom >"$eight"
for site in "${sites[@]}"; do
    start_site "$site"
    token_of[$site]=$(token "$site")
    small_digest=$(upload "$site" "$small")
    mib_digest=$(upload "$site" "$mib")
    eight_digest=$(upload "$site" "$eight")
    put_manifest "$site" "$small_digest" 10240
done

names=("push of $BLOB_MIB MiB, HTTP/1.1, s" "push of $BLOB_MIB MiB, HTTP/2, s" "pull of $BLOB_MIB MiB, HTTP/1.1, s"
    "pull of $BLOB_MIB MiB, HTTP/2, s" "pushes of 4 KiB, one after the other, /s" "manifest by tag, 32 connections, /s"
    "blob of 10 KiB, 32 connections, /s" "blob of 1 MiB, 16 connections, /s" "blob of 8 MiB, 64 connections, /s" "tokens, password remembered, 32 connections, /s")

measure() { # number, site
    local bearer="Authorization: Bearer ${token_of[$2]}"
    case $1 in
        0) push "$2" "$large" --http1.1 ;;
        1) push "$2" "$large" --http2 ;;
        2) pull "$2" --http1.1 ;;
        3) pull "$2" --http2 ;;
        4) small_pushes "$2" ;;
        5) load "$2" 32 /v2/bench/app/manifests/v1 "$bearer" ;;
        6) load "$2" 32 "/v2/bench/app/blobs/$small_digest" "$bearer" ;;
        7) load "$2" 16 "/v2/bench/app/blobs/$mib_digest" "$bearer" ;;
        8) load "$2" 64 "/v2/bench/app/blobs/$eight_digest" "$bearer" ;;
        9) load "$2" 32 '/token?service=berth&scope=repository:bench/app:pull,push' \
            "Authorization: Basic $(printf %s "andrew:$PASSWORD" | base64 -w0)" ;;
    esac
}

for round in $(seq "$ROUNDS"); do
    for site in "${sites[@]}"; do token_of[$site]=$(token "$site"); done
    for number in "${!names[@]}"; do
        for site in "${sites[@]}"; do measure "$number" "$site" >>"$work/$site-$number"; done
    done
    echo "round $round of $ROUNDS" >&2
done

median() { sort -g "$1" | awk '{ v[NR] = $1 } END { printf "%.5g", v[int((NR + 1) / 2)] }'; }

echo "Medians of $ROUNDS rounds, in turns. Berth syncs every blob to the disk; TLS and a token throughout."
echo
machine
echo
echo "| what | before | before, again | after | again/before | after/before |"
echo "|---|---|---|---|---|---|"
for number in "${!names[@]}"; do
    a=$(median "$work/before-$number") b=$(median "$work/again-$number") c=$(median "$work/after-$number")
    awk -v what="${names[number]}" -v a="$a" -v b="$b" -v c="$c" \
        'BEGIN { printf "| %s | %s | %s | %s | %.2f | %.2f |\n", what, a, b, c, b / a, c / a }'
done
echo "| both servers, resident at most, MiB | $(peak_mib before) | $(peak_mib again) | $(peak_mib after) | | |"

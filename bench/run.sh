#!/usr/bin/env bash
# `make bench`: Berth beside other registries, in turns in one run, real clients and zot's own benchmark among them; then
# Berth alone: large stores, memory, tokens, durability and collection. Writes bench/RESULTS.md and bench/results.svg. It
# takes an hour and a half, and nothing else should run meanwhile.
# `make bench-quick` is one round of the first part, in three minutes, and writes nothing.
# bench/README.md says which peers there can be and how each is set up.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
# shellcheck source=bench/lib.sh
. bench/lib.sh

mib_min=32768
[ "${1:-}" != quick ] || mib_min=4096

for pair in curl:curl jq:jq wrk:wrk nginx:nginx-light docker-registry:docker-registry \
    htpasswd:apache2-utils python3:python3 taskset:util-linux; do
    need "${pair%%:*}" "${pair##*:}"
done
free_mib=$(df --output=avail -m "${TMPDIR:-/tmp}" | tail -1)
if [ "$free_mib" -lt "$mib_min" ]; then
    echo "make bench needs $mib_min MiB in ${TMPDIR:-/tmp}, and $free_mib are free" >&2
    exit 1
fi
cargo build --release --locked --quiet --bin auth-server --bin registry-server --bin authctl --bin bench

if [ "${1:-}" = quick ]; then
    "${BENCH[@]}" --rounds 1 --secs 2 --blob-mib 256 --many 200 --quiet-only --rest-secs 5
    exit
fi

# What fails is told in its place, and what was measured is kept.
part() { # what, command...
    local what=$1 status=0
    shift
    "$@" || status=$?
    case $status in
        0) ;;
        77) printf '\n(Not measured: %s, since what it needs is not here.)\n' "$what" ;;
        *) printf '\n(Failed: %s.)\n' "$what" && touch "$work/failed" ;;
    esac
}

# More than the rounds of the first part have time for.
many_small() {
    "${BENCH[@]}" --rounds 1 --quiet-only --many 10000 tags && "${BENCH[@]}" --rounds 3 --quiet-only --many 4096 index
}

# Its clients' connections are as many as the server's.
memory() { (ulimit -Sn "$(ulimit -Hn)" && "${BENCH[@]}" --blob-mib 100 memory); }

version_of() { # name, program and its words...
    local name=$1 said
    shift
    said=$("$@" 2>&1 | grep -oE 'v?[0-9]+\.[0-9]+[^ ",]*' | head -n 1) || said="of no known version"
    echo "$name $said"
}

{
    echo "# Results of the last \`make bench\`"
    echo
    machine
    echo "The clients run on the same machine."
    echo
    echo "- $(version_of nginx nginx -v)"
    echo "- $(version_of docker-registry docker-registry --version)"
    [ -z "${DISTRIBUTION:-}" ] || echo "- $(version_of distribution "$DISTRIBUTION" --version)"
    [ -z "${ZOT:-}" ] || echo "- zot $("$ZOT" --version 2>&1 | jq -r 'if .commit == "" then "of no known version" else .commit end')"
    [ -z "${ANGOS:-}" ] || echo "- angos, whose program tells no version"
    [ -z "${DOCKER_AUTH:-}" ] || echo "- docker_auth, whose program tells no version"
    echo
    part "all peers" "${BENCH[@]}" --picture bench/results.svg "$@"
    part "many small things" many_small
    part "real clients" env BERTH_BIN="$BIN" bench/clients.sh
    part "zb" bench/zb.sh
    part "growth" "${BENCH[@]}" --secs 2 --many 500 growth
    part "memory" memory
    part "tokens" bench/tokens.sh
    part "durability" bench/durability.sh
    part "collection" bench/collection.sh
    part "PostgreSQL and S3" env BERTH_BIN="$BIN" bench/cluster.sh
} | tee "$work/RESULTS.md"
mv "$work/RESULTS.md" bench/RESULTS.md
[ ! -e "$work/failed" ]

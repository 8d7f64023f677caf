#!/usr/bin/env bash
# What zot's own benchmark program says of Berth and of zot: ZB names it, and ZOT zot. TLS, and a password with every
# request. Called by `make bench`; prints a table.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
# shellcheck source=bench/lib.sh
. bench/lib.sh

export LC_ALL=C
readonly CLIENTS=${BENCH_ZB_CLIENTS:-2} REQUESTS=${BENCH_ZB_REQUESTS:-20}
# Not those of mixed sizes, which are drawn anew in each run.
readonly TESTS='^(Get Catalog|(Pull|Push Monolith|Push Chunk Streamed) 10*MB)$'

echo
if [ -z "${ZB:-}" ]; then
    echo "(zot's benchmark program was not run: \`ZB\` did not name it.)"
    exit
fi

# rates PEER: a line per test, with its name, requests a second and failures.
rates() {
    echo "zb at $1" >&2
    # It trusts whatever CA.
    "$ZB" --auth-creds "${login_of[$1]}" --concurrency "$CLIENTS" --requests "$REQUESTS" --test-regex "$TESTS" \
        --working-dir "$work/$1.zb" "${base_of[$1]}" >"$work/$1.out" 2>&1
    awk -F ': *\t*' -v OFS='\t' '
        /^Test name:/ { name = $2 }
        /^Requests per second:/ { rate = $2 }
        /^Failed requests:/ { print name, rate, $2 }' "$work/$1.out"
}

start_peers berth-tls zot-tls
for peer in berth-tls zot-tls; do
    # One that is missing has no rates.
    : >"$work/$peer.rates"
    [ -z "${base_of[$peer]:-}" ] || rates "$peer" >"$work/$peer.rates"
done
echo "zb, the benchmark program of zot, with $CLIENTS clients and $REQUESTS requests a test, in requests a second; it shows user and password with every request:"
echo
echo "| test | Berth, TLS | zot, TLS, htpasswd | Berth is ahead by |"
echo "|---|---|---|---|"
join -t $'\t' -a 1 <(sort -t $'\t' -k 1,1 "$work/berth-tls.rates") <(sort -t $'\t' -k 1,1 "$work/zot-tls.rates") | awk -F '\t' '
    function told(rate, failed) { return sprintf(rate < 10 ? "%.1f" : "%.0f", rate) (failed > 0 ? " (" failed " failed)" : "") }
    NF < 5 { printf "| %s | %s | | |\n", $1, told($2, $3); next }
    { printf "| %s | %s | %s | %.1f× |\n", $1, told($2, $3), told($4, $5), ($4 > 0 ? $2 / $4 : 0) }'

#!/usr/bin/env bash
# How long a collection takes by how much is stored: 10 k, 100 k and 1 M blobs, one in a hundred of
# them garbage. The rows are written straight into the database; only garbage has files, since a
# collection looks at no others. Called by `make bench`; prints a table.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=bench/lib.sh
. bench/lib.sh

readonly SIZES=${BENCH_COLLECTION_SIZES:-10000 100000 1000000}

# make_site SITE: settings, and an empty database.
make_site() {
    BERTH_DATA=$1 BERTH_CERTS=$1/certs BERTH_HOST=localhost BERTH_PORT=5000 BERTH_USER=andrew \
        BERTH_PASSWORD=bench-password "$BIN/authctl" init --listen 127.0.0.1:0 >/dev/null
    "$BIN/registry-server" --config "$1/registry.toml" 2>/dev/null &
    local server=$!
    until [ -e "$1/registry/registry.sock" ]; do sleep 0.1; done
    kill "$server"
    wait "$server" || true
}

echo
echo "Collection, one blob in a hundred being garbage; a second run finds nothing:"
echo
echo "| blobs | removed | first run | per removed blob | longest step | second run | per 100,000 blobs |"
echo "|---|---|---|---|---|---|---|"
for blobs in $SIZES; do
    site=$work/$blobs
    make_site "$site"
    "${BENCH[@]}" fill "$site" "$blobs"
    # What the filling left to the system would be written by the collection's first sync.
    sync "$site"/registry/registry.db*
    for run in first second; do
        "$BIN/registry-server" --config "$site/registry.toml" --json gc | tail -n 1 >"$work/$run"
    done
    jq --raw-output --argjson blobs "$blobs" --slurpfile second "$work/second" '
        def tenths: (. * 10 | round) / 10;
        def seconds: (. / 10 | round) / 100;
        ($second[0].millis) as $scan |
        "| \($blobs) | \(.blobs) | \(.millis | seconds) s | \((.millis - $scan) / .blobs | tenths) ms"
        + " | \(.longest_step_micros / 1000 | round) ms | \($scan | seconds) s"
        + " | \($scan * 100000 / $blobs | seconds) s |"' "$work/first"
    rm -rf "$site"
done

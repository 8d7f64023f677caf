#!/usr/bin/env bash
# `make bench-load`: what both servers hold in memory and files under each load, and how a good client fares beside
# it. It takes some ten minutes and writes bench/LOAD.md. `bench/load.sh a3-manifests a1-silent` puts on these two and
# prints them alone; `bench/load.sh --help` says which there are. BERTH_BIN names other binaries, BERTH_LOAD a load program
# that is built already.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
# shellcheck source=bench/lib.sh
. bench/lib.sh

readonly LOAD=${BERTH_LOAD:-${CARGO_TARGET_DIR:-target}/release/load}
readonly FILES_MIN=4096 MIB_MIN=6144

[ -n "${BERTH_LOAD:-}" ] || cargo build --release --locked --quiet -p berth-tests --bin load

case ${1:-} in -h | --help) exec "$LOAD" --help ;; esac

[ -n "${BERTH_BIN:-}" ] ||
    cargo build --release --locked --quiet -p berth-auth-server -p berth-registry-server --bins

# The clients' connections are as many as the servers'.
ulimit -Sn "$(ulimit -Hn)"
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt "$FILES_MIN" ]; then
    echo "bench/load.sh opens up to $FILES_MIN files, and ulimit -n allows $(ulimit -n)" >&2
    exit 1
fi
free_mib=$(df --output=avail -m "${TMPDIR:-/tmp}" | tail -1)
if [ "$free_mib" -lt "$MIB_MIN" ]; then
    echo "bench/load.sh needs $MIB_MIN MiB in ${TMPDIR:-/tmp}, and $free_mib are free" >&2
    exit 1
fi

load() { "$LOAD" --bin "$BIN" --data "$work" "$@"; }

if [ "$#" -gt 0 ]; then
    load "$@"
    exit
fi
{
    echo "# Results of the last \`make bench-load\`"
    echo
    echo "Each load has servers and a data directory of its own, with the settings that \`authctl init\` makes."
    echo "A good client pulls, pushes and signs in all the while, with a new connection for each request; its worst answers stand in the row."
    echo "Memory is what was resident at the end, and the most that ever was; files are the most that were open."
    echo
    machine
    echo "The clients run on the same machine."
    echo
    load
} | tee "$work/LOAD.md"
mv "$work/LOAD.md" bench/LOAD.md

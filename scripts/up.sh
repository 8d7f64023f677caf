#!/usr/bin/env bash
# `make up`: build, prepare what is missing, and serve until Ctrl-C or SIGTERM.
set -euo pipefail
cd "$(dirname "$0")/.."

data=${BERTH_DATA:-data}
bin=target/release

need() { # program, what it is for, how to get it
    command -v "$1" >/dev/null 2>&1 && return
    printf 'make up needs %s (%s). Install it with:\n\n    %s\n\n' "$1" "$2" "$3" >&2
    missing=1
}

missing=0
need cargo "the Rust toolchain, to build Berth" \
    "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh   # then: . ~/.cargo/env"
need cc "a C compiler, for SQLite and the cryptography" "sudo apt-get install gcc libc6-dev"
[ "$missing" -eq 0 ] || exit 1

echo "Building Berth (the first time takes a few minutes) ..."
cargo build --release --locked --quiet --bin auth-server --bin registry-server --bin authctl

"$bin/authctl" init

pids=()
told_to_stop=
stop() {
    trap - INT TERM
    [ "${#pids[@]}" -eq 0 ] || kill -TERM "${pids[@]}" 2>/dev/null || true
}
trap 'told_to_stop=1; stop' INT TERM

"$bin/auth-server" --config "$data/auth.toml" &
pids+=($!)
"$bin/registry-server" --config "$data/registry.toml" &
pids+=($!)

# Ready, or one of the two has ended and said why.
until "$bin/registry-server" --config "$data/registry.toml" health 2>/dev/null; do
    for pid in "${pids[@]}"; do
        kill -0 "$pid" 2>/dev/null || break 2
    done
    sleep 0.2
done
# kill of several succeeds where one of them runs.
if kill -0 "${pids[0]}" 2>/dev/null && kill -0 "${pids[1]}" 2>/dev/null; then
    url=$(sed -n 's/^public_urls = \["\([^"]*\)".*/\1/p' "$data/registry.toml")
    echo "Berth is up: $url. Ctrl-C stops it; make up goes on with the same data."
fi

# Either both stop because they were told to, or one ends by itself and takes the other along.
status=0
wait -n "${pids[@]}" || status=$?
stop
for pid in "${pids[@]}"; do
    wait "$pid" || true
done
[ -n "$told_to_stop" ] || exit "$status"

# shellcheck shell=bash
# What the scripts beside this file share, which source it: a directory and processes that go when the script ends.

work=$(mktemp -d "${TMPDIR:-/tmp}/berth-bench.XXXXXX")
# nginx's workers are somebody else.
chmod 0755 "$work"
pids=()
finish() {
    local status=$?
    [ "$status" -eq 0 ] || tail -n 5 "$work"/*.log 2>/dev/null | cut -c1-300 >&2 || true
    [ "${#pids[@]}" -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
    wait || true
    rm -rf "$work"
}
trap finish EXIT

readonly BIN=${BERTH_BIN:-${CARGO_TARGET_DIR:-target}/release}
# What a script calls to measure.
BENCH=("${CARGO_TARGET_DIR:-target}/release/bench" --bin "$BIN" --data "$work")

need() { # program, package
    command -v "$1" >/dev/null && return
    [ "$(id -u)" -eq 0 ] || { echo "make bench needs $1: sudo apt-get install $2" >&2; exit 1; }
    apt-get install -y -qq "$2" >/dev/null
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

until_answers() { # url
    for _ in $(seq 100); do
        curl -sk -o /dev/null "$1" && return
        sleep 0.1
    done
    echo "nothing answers on $1" >&2
    return 1
}

# start_peers PEER...: those of them that there are, told of by name in base_of and login_of.
declare -A base_of=() login_of=()
start_peers() {
    local name base login
    "${BENCH[@]}" peers "$@" >"$work/peers" &
    pids+=($!)
    until grep -q '^ready$' "$work/peers"; do
        kill -0 "$!" 2>/dev/null || { echo "the peers did not start" >&2; return 1; }
        sleep 0.1
    done
    while read -r name base login _; do
        # shellcheck disable=SC2034  # for the scripts that source this
        [ -z "$base" ] || base_of[$name]=$base login_of[$name]=$login
    done <"$work/peers"
}

# A line that says where this was measured.
machine() {
    echo "Machine: $(nproc) cores, $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo) of memory, $(uname -sr), $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1)."
}

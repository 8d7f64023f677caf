#!/usr/bin/env bash
# Every target of fuzz/, built once and run for four seconds from its corpus, in `make test-full` for ten.
# BERTH_FUZZ_SECONDS=600 runs them longer; an input that breaks a target is kept below target/fuzz/found.
# Without a sanitizer: Berth has no unsafe code, so the targets look for panics and broken promises.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

cargo_fuzz=0.13.2
seconds=4
[[ -z ${BERTH_FULL:-} ]] || seconds=10
seconds=${BERTH_FUZZ_SECONDS:-$seconds}
built=$root/target/fuzz
found=$built/found

need_nightly() {
    command -v rustup >/dev/null || skip "rustup is missing, which brings the nightly compiler that cargo-fuzz needs"
    rustup run nightly cargo --version >/dev/null 2>&1 && return
    note "installing a nightly compiler"
    rustup toolchain install nightly --profile minimal --no-self-update >/dev/null 2>&1 ||
        skip "a nightly compiler is missing: rustup toolchain install nightly"
}

# It only starts other programs, so it need not be optimised.
need_cargo_fuzz() {
    command -v cargo-fuzz >/dev/null && return
    note "installing cargo-fuzz $cargo_fuzz"
    local log status=0
    log=$(cargo install --locked --debug "cargo-fuzz@$cargo_fuzz" --target-dir "$built/cargo-fuzz" 2>&1) || status=$?
    rm -rf "$built/cargo-fuzz"
    ((status == 0)) && return
    indent <<<"$log"
    skip "cargo-fuzz is missing: cargo install --locked cargo-fuzz"
}

cargo_nightly() { (cd "$root" && cargo +nightly "$@"); }

build() { cargo_nightly fuzz build --fuzz-dir fuzz --sanitizer none --target-dir "$built"; }

# The triple of this machine stands in the path.
program() { find "$built"/*/release -maxdepth 1 -type f -name "$1" -perm -u+x -print -quit; }

# run TARGET: works on a copy of the corpus, since what is found on the way is added to it.
run() {
    local target=$1
    mkdir -p "$scratch/$target" "$found/$target"
    cp -r "$root/fuzz/corpus/$target/." "$scratch/$target"
    "$(program "$target")" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=512 \
        -artifact_prefix="$found/$target/" -print_final_stats=1 "$scratch/$target" >"$scratch/$target.log" 2>&1
}

# judge TARGET STATUS
judge() {
    local log=$scratch/$1.log runs
    if (($2 != 0)); then
        # From the panic to where the input was written.
        grep --extended-regexp 'panicked at|ERROR|Test unit written' --after-context 2 "$log" | tail -n 30 | indent
        fail "fuzz target $1: see the inputs in $found/$1"
    fi
    runs=$(awk '/^stat::number_of_executed_units:/ { print $2 }' "$log")
    ((runs > 0)) || fail "fuzz target $1 ran nothing"
    ok "fuzz target $1: $runs inputs in $seconds s"
}

need_nightly
need c++ g++
need_cargo_fuzz

scratch=$(mktemp -d -t berth-fuzz.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

succeeds "the fuzz targets build" build

# As many at once as there are processors.
targets=("$root"/fuzz/fuzz_targets/*.rs)
targets=("${targets[@]##*/}")
targets=("${targets[@]%.rs}")
at_once=$(nproc)
for ((first = 0; first < ${#targets[@]}; first += at_once)); do
    batch=("${targets[@]:first:at_once}")
    pids=() statuses=()
    for target in "${batch[@]}"; do
        run "$target" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        status=0
        wait "$pid" || status=$?
        statuses+=("$status")
    done
    for i in "${!batch[@]}"; do
        judge "${batch[i]}" "${statuses[i]}"
    done
done

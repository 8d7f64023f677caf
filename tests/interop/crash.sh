# shellcheck shell=bash
# Sourced by kill.sh and powercut.sh: the program that kills the servers while clients push.

rounds=${BERTH_ROUNDS:-20}
programs=${CARGO_TARGET_DIR:-$root/target}/debug

# need_programs NAME...: those of the package berth-tests. `make test` has built them for its tests.
need_programs() {
    local name missing=
    for name in "$@"; do
        [[ -x $programs/$name ]] || missing=1
    done
    [[ -n $missing ]] || return 0
    note "building the programs of berth-tests"
    (cd "$root" && cargo build --locked --quiet -p berth-tests --bins) || fail "the programs of berth-tests do not build"
    for name in "$@"; do
        [[ -x $programs/$name ]] || fail "there is no program $name in berth-tests"
    done
}

# crash ARGUMENTS...: prints a line for each group of checks.
crash() { "$programs/crash" --bin "$bin" --rounds "$rounds" "$@"; }

#!/usr/bin/env bash
# `make test`: format, lints, tests, documentation, dependencies, and real clients.
# As root on Debian it installs what is missing; otherwise it says what to install.
# A step that cannot run here is skipped and counted; with CI=true a skip is a failure.
# BERTH_JOBS says how many interop scripts run side by side, instead of one more than there are cores.
# With BERTH_FULL=1, as `make test-full` has it, those of tests/full too, which build other projects first.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

passed=0 failed=0 skipped=0
failures=()
times=()
building=
# One more than there are cores, since some scripts do little but wait.
jobs=${BERTH_JOBS:-$(($(nproc) + 1))}
logs=$(mktemp -d "${TMPDIR:-/tmp}/berth-test.XXXXXX")
log=$logs/cargo
trap 'rm -rf "$logs"' EXIT
trap stop_scripts INT TERM HUP

heading() {
    printf '\n=== %s\n' "$1"
    begun=$SECONDS
}

verdict() { # name, passed, failed, skipped
    passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
    times+=("$((SECONDS - begun)) s  $1")
    [ "$3" -eq 0 ] || failures+=("$1")
    [ "$4" -eq 0 ] || [ "${CI:-}" != true ] || failures+=("$1 (skipped)")
}

# A step that passes or fails as a whole.
step() { # name, command...
    local name=$1
    shift
    heading "$name"
    if "$@"; then verdict "$name" 1 0 0; else verdict "$name" 0 1 0; fi
}

# The programs that the interop scripts start are built while the tests run, which wait more than they work.
build_programs() {
    cargo build --release --locked -p berth-auth-server -p berth-registry-server --bins >"$logs/release" 2>&1 &
    building=$! building_since=$SECONDS
}

programs_are_built() {
    local name="release build" status=0
    wait "$building" || status=$?
    heading "$name"
    begun=$building_since
    cat "$logs/release"
    building=
    if [ "$status" -eq 0 ]; then verdict "$name" 1 0 0; else verdict "$name" 0 1 0; fi
}

# The test programs count for themselves.
cargo_tests() {
    heading "tests"
    local status=0
    cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" || status=1
    local ok bad
    ok=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")
    bad=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$log")
    [ "$status" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    verdict "tests" "$ok" "$bad" 0
}

# The scripts of interop, each in namespaces of its own, several side by side.
# What one printed is shown when it has ended.
declare -A script_of=() begun_of=()

interop_all() { # script...
    local script
    for script in "$@"; do
        ((${#script_of[@]} < jobs)) || one_ends
        echo "# $(name_of "$script") begins"
        bash "$script" >"$logs/$(basename "$script")" 2>&1 &
        script_of[$!]=$script begun_of[$!]=$SECONDS
    done
    while ((${#script_of[@]} > 0)); do one_ends; done
}

name_of() { echo "interop/$(basename "$1" .sh)"; }

# An interop script prints a line per check: `ok - what it showed`. 77 says that it cannot run here.
one_ends() {
    local pid status=0 name printed
    wait -n -p pid || status=$?
    name=$(name_of "${script_of[$pid]}") printed=$logs/$(basename "${script_of[$pid]}")
    heading "$name"
    begun=${begun_of[$pid]}
    cat "$printed"
    unset "script_of[$pid]" "begun_of[$pid]"
    case $status in
        0) verdict "$name" "$(grep -c '^ok ' "$printed")" 0 0 ;;
        77) verdict "$name" 0 0 1 ;;
        *) verdict "$name" "$(grep -c '^ok ' "$printed")" 1 0 ;;
    esac
}

# What runs in the background does not hear Ctrl-C by itself.
stop_scripts() {
    [ "${#script_of[@]}" -eq 0 ] || kill -TERM "${!script_of[@]}" 2>/dev/null
    [ -z "$building" ] || kill -TERM "$building" 2>/dev/null
    wait
    exit 130
}

require() { # program, what to type
    command -v "$1" >/dev/null 2>&1 && return
    echo "make test needs $1. Install it with:" >&2
    printf '\n    %s\n\n' "$2" >&2
    exit 1
}

# Debian packages, for root; others are told.
packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok' || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "Installing: ${missing[*]}"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"; } >/dev/null
    else
        printf 'Some checks need packages. Install them with:\n\n    sudo apt-get install %s\n\n' "${missing[*]}" >&2
    fi
}

dependencies() {
    command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny || return 1
    cargo deny --locked check bans licenses sources
}

require cargo "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh   # then: . ~/.cargo/env"
packages gcc libc6-dev make curl jq python3 systemd
require cc "sudo apt-get install gcc libc6-dev"

# fuzz/ is a workspace of its own, whose lock file no other step of this one would bring up to date.
fuzz_lock() { cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null; }

step "format" cargo fmt --all --check
step "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
step "lints of the bench" cargo clippy --workspace --bench hot --features berth-tests/hot --locked -- -D warnings
step "lock file of the fuzz targets" fuzz_lock
step "build of the tests" cargo test --workspace --locked --no-run
build_programs
cargo_tests
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
step "dependencies" dependencies
programs_are_built
if [ "$failed" -eq 0 ] || [ -x target/release/registry-server ]; then
    export BERTH_BIN=$PWD/target/release
    # Those that take longest begin first.
    scripts=(tests/interop/{fuzz-smoke,s3,replicas,long-upload,import,compose,memory,proxies,honest}.sh)
    for script in tests/interop/*.sh; do
        [[ " ${scripts[*]} " == *" $script "* ]] || scripts+=("$script")
    done
    [ -z "${BERTH_FULL:-}" ] || scripts+=(tests/full/*.sh)
    # Those that are only sourced by the others are not executable.
    for at in "${!scripts[@]}"; do
        [ -x "${scripts[at]}" ] || unset "scripts[at]"
    done
    interop_all "${scripts[@]}"
fi

heading "seconds of each step"
printf '%s\n' "${times[@]}" "$SECONDS s  all" | sort --numeric-sort --reverse

heading "result"
for name in "${failures[@]:+${failures[@]}}"; do
    echo "FAILED: $name"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "${#failures[@]}" -eq 0 ]

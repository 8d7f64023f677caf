# shellcheck shell=bash
# Functions shared by the scripts beside this file, which source it. It does nothing by itself.
#
# A script calls `enter_sandbox` and goes on inside: as root, in mount, network and process namespaces of its own.
# There it has its own /etc (hosts, certs.d), its own /run, its own loopback with every port free, and its own dockerd.
# So the machine's files, addresses, firewall and docker are left as they are,
# and when the script ends, however it ends, the kernel takes down every process and mount of it.

set -euo pipefail

# Where Debian keeps dockerd, nginx and debootstrap; `su` without a dash leaves it out.
PATH=$PATH:/usr/sbin:/sbin

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$(realpath -m "${BERTH_BIN:-$root/target/release}")
# The programs of berth-tests, which need not be fast.
programs=${CARGO_TARGET_DIR:-$root/target}/debug

# docker does not check certificates for names that lead to 127.0.0.0/8, so this name leads elsewhere:
# to an address kept for documentation, which exists on the sandbox's loopback alone.
host=reg.homelab.lan
host_address=198.51.100.10

scratch=${BERTH_SANDBOX:-}
started=()
declare -A pid_of=()
# A function of the script's own that puts more files into $scratch/logs before they are shown.
on_failure=true

# ---------------------------------------------------------------- telling

note() { printf '# %s\n' "$*"; }
ok() { printf 'ok - %s\n' "$*"; }

fail() {
    printf 'not ok - %s\n' "$*"
    exit 1
}

# Exit 77 is what the caller counts as skipped.
skip() {
    printf 'skipped: %s\n' "$*"
    exit 77
}

indent() { sed -e '/^$/d' -e 's/^/#   /'; }
last_line() { sed '/^[[:space:]]*$/d' | tail -n 1; }

# succeeds WHAT COMMAND...: one check. What the command printed is shown only when it failed, and kept in $output.
# The command runs in a subshell, so it cannot start or stop processes of ours.
succeeds() {
    local what=$1
    shift
    if output=$("$@" 2>&1); then
        ok "$what"
    else
        indent <<<"$output"
        fail "$what"
    fi
}

# refused WHAT PATTERN COMMAND...: the command must fail and say why, in words that match PATTERN.
refused() {
    local what=$1 pattern=$2
    shift 2
    local begun=$SECONDS
    if output=$("$@" 2>&1); then
        indent <<<"$output"
        fail "$what: it was let through"
    fi
    local words
    if ! words=$(grep --max-count 1 --ignore-case --extended-regexp "$pattern" <<<"$output"); then
        indent <<<"$output"
        fail "$what: refused, but not in words like '$pattern'"
    fi
    # docker repeats an upload for 50 s when the refusal does not look final to it.
    ((SECONDS - begun < 15)) || fail "$what: refused, but only after $((SECONDS - begun)) s"
    ok "$what: $words"
}

# says WHAT STATUS PATTERN COMMAND...: the command ends with this status and prints a match of the pattern. What it
# printed is kept in $output.
says() {
    local what=$1 expected=$2 pattern=$3 status=0
    shift 3
    output=$("$@" 2>&1) || status=$?
    [[ $status == "$expected" ]] || fail "$what: exit $status instead of $expected: $output"
    grep --quiet --extended-regexp -e "$pattern" <<<"$output" || fail "$what: it says $output"
    ok "$what (exit $status)"
}

# wait_for SECONDS WHAT COMMAND...: tries the command until it succeeds.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "waited in vain for $what"
        sleep 0.1
    done
}

# ---------------------------------------------------------------- what the machine must have

need_root() {
    [[ $(id -u) -eq 0 ]] || skip "needs root (a docker daemon of its own, in namespaces of its own)"
}

# need COMMAND PACKAGE: installs Debian's package where the command is missing.
need() {
    command -v "$1" >/dev/null && return
    if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
        skip "$1 is missing: apt-get install $2"
    fi
    note "installing $2, because $1 is missing"
    apt_install "$2" || skip "$1 is missing, and $2 could not be installed"
    command -v "$1" >/dev/null || skip "$1 is missing, and $2 did not bring it"
}

apt_install() {
    local log
    log=$(DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$1" 2>&1) && return
    # An image of Debian comes without package lists.
    log+=$(apt-get update 2>&1) || true
    log+=$(DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$1" 2>&1) && return
    indent <<<"$log"
    return 1
}

need_docker() {
    need dockerd docker.io
    need docker docker.io
    need iptables iptables
    need ip iproute2
}

# gcc by itself does not bring the C library to link with.
need_static_compiler() {
    need gcc gcc
    links_statically && return
    [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null && apt_install libc6-dev && links_statically && return
    skip "gcc cannot link statically: apt-get install libc6-dev"
}

links_statically() { [[ -e $(gcc -print-file-name=libc.a) ]]; }

need_binaries() {
    local name
    for name in auth-server registry-server authctl; do
        [[ -x $bin/$name ]] || fail "$bin/$name is missing: cargo build --release"
    done
}

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

# ---------------------------------------------------------------- the sandbox

# enter_sandbox [PREPARE...]: runs PREPARE outside, where there is a network, then the whole script again inside.
enter_sandbox() {
    if in_sandbox; then
        furnish_sandbox
        return
    fi
    need_root
    one_at_a_time "$@"
    local try=(unshare --mount --net --pid --fork --mount-proc)
    "${try[@]}" true 2>/dev/null || skip "namespaces are not allowed here, so a docker daemon would not run either"
    scratch=$(mktemp -d -t berth-interop.XXXXXX)
    trap leave_outside EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    local status=0
    BERTH_SANDBOX=$scratch "${try[@]}" --kill-child bash "$0" </dev/null &
    sandbox=$!
    wait "$sandbox" || status=$?
    exit "$status"
}

# one_at_a_time COMMAND...: of all scripts, those of another `make test` too: what is missing is installed and built once.
one_at_a_time() {
    local lock
    mkdir -p "$root/target/interop"
    exec {lock}>"$root/target/interop/prepare.lock"
    flock "$lock"
    "$@"
    exec {lock}>&-
}

in_sandbox() { [[ -n $scratch && $$ -eq 1 ]]; }

furnish_sandbox() {
    trap leave_inside EXIT
    mkdir -p "$scratch/etc" "$scratch/logs"
    mount -t tmpfs -o mode=0755 sandbox "$scratch/etc"
    cp -a /etc/. "$scratch/etc/"
    mount --bind "$scratch/etc" /etc
    # Hides the sockets of a docker, containerd, D-Bus or firewalld that the machine may run.
    mount -t tmpfs -o mode=0755 sandbox /run
    rm -rf /etc/docker
    mkdir -p /etc/docker/certs.d
    ip link set lo up
    ip address add "$host_address/32" dev lo
    # The first line that names a host counts, and the machine's own may lead to 127.0.0.1.
    sed --in-place "/[[:space:]]$host\([[:space:]]\|\$\)/d" /etc/hosts
    printf '%s %s\n' "$host_address" "$host" >>/etc/hosts
}

# The last thing inside: on failure the logs, then everything stops in the order that leaves no containers behind.
leave_inside() {
    local status=$?
    trap - EXIT
    set +e
    if ((status != 0 && status != 77)); then
        "$on_failure"
        show_logs
    fi
    if [[ -n ${pid_of[dockerd]:-} ]]; then
        docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
    fi
    local at
    for ((at = ${#started[@]} - 1; at >= 0; at--)); do
        stop "${started[at]}"
    done
    exit "$status"
}

show_logs() {
    local log
    for log in "$scratch"/logs/*.log; do
        [[ -s $log ]] || continue
        note "the end of $(basename "$log"):"
        tail -n 60 "$log" | indent
    done
}

# The last thing outside, also on Ctrl-C: killing `unshare` kills the sandbox's first process, and with it all others.
leave_outside() {
    local status=$?
    trap - EXIT INT TERM HUP
    set +e
    kill -KILL "$sandbox" 2>/dev/null
    wait "$sandbox" 2>/dev/null
    local deadline=$((SECONDS + 20))
    until rm -rf "$scratch" 2>/dev/null || ((SECONDS > deadline)); do
        sleep 0.1
    done
    # docker removes a container's control groups, but not their parent.
    find /sys/fs/cgroup -depth -type d -path "*/$(basename "$scratch")*" -exec rmdir {} \; 2>/dev/null
    exit "$status"
}

# ---------------------------------------------------------------- processes inside the sandbox

# start NAME COMMAND...: in the background, with its output in $scratch/logs/NAME.log.
start() {
    local name=$1
    shift
    "$@" >>"$scratch/logs/$name.log" 2>&1 &
    pid_of[$name]=$!
    started+=("$name")
}

# stop NAME: SIGTERM, then SIGKILL after 20 s. The exit status is that of the process.
stop() {
    local pid=${pid_of[$1]:-} status=0
    [[ -n $pid ]] || return 0
    unset "pid_of[$1]"
    # One that has ended by itself cannot be told to.
    kill -TERM "$pid" 2>/dev/null || true
    local deadline=$((SECONDS + 20))
    while kill -0 "$pid" 2>/dev/null && ((SECONDS < deadline)); do
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || status=$?
    return "$status"
}

# Below the range from which the kernel takes ports for outgoing connections.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    printf '%s\n' "$port"
}

start_dockerd() {
    in_sandbox || fail "a private dockerd belongs into the sandbox"
    unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
    export DOCKER_HOST=unix://$scratch/docker.sock DOCKER_CONFIG=$scratch/docker-config
    # BuildKit is a plugin that Debian's docker.io does not have.
    export DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0
    mkdir -p "$DOCKER_CONFIG"
    # With no entry at all docker takes a credential store that happens to be installed.
    printf '{"auths": {"unused.invalid": {}}}\n' >"$DOCKER_CONFIG/config.json"
    start dockerd dockerd --log-level error --host "$DOCKER_HOST" --pidfile "$scratch/docker.pid" \
        --data-root "$scratch/docker" --exec-root "$scratch/docker-exec" \
        --cgroup-parent "$(basename "$scratch")"
    wait_for 60 "dockerd" docker version
    note "docker $(docker version --format '{{.Client.Version}}, engine {{.Server.Version}}')"
}

# make_greeter IMAGE: an image of one static binary, which prints $greeting.
greeting="Hello from a berth."
make_greeter() {
    local dir=$scratch/greeter
    mkdir -p "$dir"
    printf '#include <stdio.h>\nint main(void) { puts("%s"); return 0; }\n' "$greeting" >"$dir/hello.c"
    gcc -static -Os -o "$dir/hello" "$dir/hello.c"
    printf 'FROM scratch\nCOPY hello /hello\nCMD ["/hello"]\n' >"$dir/Dockerfile"
    docker build --quiet --tag "$1" "$dir" >/dev/null 2>&1 || fail "docker build of the greeter"
}

# sign_in REGISTRY USER PASSWORD. The password goes in by stdin, never as an argument.
sign_in() { printf '%s' "$3" | docker login --username "$2" --password-stdin "$1"; }

# trust REGISTRY CA_FILE: what a user does so that docker accepts a CA.
trust() { install -D -m 0644 "$2" "/etc/docker/certs.d/$1/ca.crt"; }

# No image and no layer is left in the local docker, so that the next pull is one.
forget_images() {
    docker image prune --all --force >/dev/null
    [[ -z $(docker image ls --all --quiet) ]] || fail "images are left in the local docker"
}

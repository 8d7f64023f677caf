#!/usr/bin/env bash
# IPv6: what `authctl init` makes is reached at an IPv6 address, under a name that has no other, and at an IPv4 address as
# before; and a machine without IPv6 starts all the same.
# shellcheck source=tests/interop/go-clients.sh
. "$(dirname "$0")/go-clients.sh"

crane=github.com/google/go-containerregistry/cmd/crane@v0.22.1

prepare() {
    need_docker
    need_static_compiler
    need curl curl
    need jq jq
    need python3 python3
    go_tool $crane
    need_binaries
}

enter_sandbox prepare

six=six.homelab.lan
layout=$scratch/image

settle() {
    ip -6 address add 2001:db8::10/128 dev lo nodad 2>/dev/null || skip "this kernel has no IPv6"
    printf '2001:db8::10 %s\n' $six >>/etc/hosts
    succeeds "authctl init for IPv4, IPv6 and a name that has an AAAA record alone" init_for_both
    grep --quiet --fixed-strings "listen = \"[::]:$port\"" "$data/registry.toml" || fail "it listens elsewhere"
    start auth-server "$bin/auth-server" --config "$data/auth.toml"
    start registry-server "$bin/registry-server" --config "$data/registry.toml"
    wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
    trust_go
}

init_for_both() {
    BERTH_DATA=$data BERTH_CERTS=$certs BERTH_HOST=$host,$six,::1 BERTH_PORT=$port \
        BERTH_USER=andrew BERTH_PASSWORD=$andrew_password "$bin/authctl" init
}

curl_reaches() {
    local at
    for at in "$host" $six '[::1]'; do
        says "curl to $at" 0 "realm=\"https://${at//[/\\[}:$port/token\"" \
            curl --silent --include --globoff --cacert "$certs/ca.pem" "https://$at:$port/v2/"
    done
    log_has 'GET /v2/ .*client=2001:db8::10' || fail "the log names no IPv6 client"
    log_has "GET /v2/ .*client=$host_address" || fail "the log names IPv4 clients otherwise"
    ok "the log names clients of either family as they are"
}

crane_pushes_and_pulls() {
    make_layout "$layout" "crane's words"
    local to
    for to in "[::1]:$port" "$six:$port"; do
        docker_config "$to" andrew "$andrew_password" | install -D -m 0600 /dev/stdin "$scratch/crane/config.json"
        succeeds "crane push to $to" env DOCKER_CONFIG="$scratch/crane" crane push --index "$layout" "$to/team/app:1"
        succeeds "crane pull from $to" env DOCKER_CONFIG="$scratch/crane" crane pull "$to/team/app:1" "$scratch/pulled.tar"
    done
}

# An engine of Debian's age knows no IPv6 address in the name of an image; a login there it does.
docker_pushes_and_pulls() {
    start_dockerd
    local to
    for to in "[::1]:$port" "$six:$port"; do
        trust "$to" "$certs/ca.pem"
        succeeds "docker login to $to" sign_in "$to" andrew "$andrew_password"
    done
    make_greeter "$six:$port/team/hello:1"
    succeeds "docker push to $six:$port" docker push "$six:$port/team/hello:1"
    forget_images
    says "docker run from $six:$port" 0 "$greeting" docker run --rm "$six:$port/team/hello:1"
}

# without_ipv6 COMMAND...: the system answers as a kernel that was built without.
without_ipv6() {
    python3 - "$@" <<'PYTHON'
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# socket(AF_INET6, …) gives EAFNOSUPPORT: BPF on the number of the call and its first argument.
number = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
code = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, 0, 1, 10), (0x06, 0, 0, 0x00050000 | 97), (0x06, 0, 0, 0x7fff0000)]
program = b"".join(struct.pack("HBBI", *line) for line in code)
lines = ctypes.create_string_buffer(program)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_void_p)]
filter = Program(len(code), ctypes.addressof(lines))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(filter), 0, 0):
    sys.exit("no seccomp: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
PYTHON
}

a_machine_without_it_starts() {
    stop registry-server
    start registry-server without_ipv6 "$bin/registry-server" --config "$data/registry.toml"
    wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
    log_has 'this machine has no IPv6: listening on IPv4 alone' || fail "the log does not say it"
    says "curl over IPv4" 0 'realm=' curl --silent --include --cacert "$certs/ca.pem" "https://$host:$port/v2/"
    ok "a machine without IPv6 starts, and says so"
}

# ----------------------------------------------------------------

settle
curl_reaches
crane_pushes_and_pulls
docker_pushes_and_pulls
a_machine_without_it_starts

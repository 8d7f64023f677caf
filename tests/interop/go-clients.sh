# shellcheck shell=bash
# Sourced by the scripts for clients that are built with Go. It brings stack.sh along.

# shellcheck source=tests/interop/stack.sh
declare -F start_berth >/dev/null || . "$(dirname "${BASH_SOURCE[0]}")/stack.sh"

tools=$root/target/interop/bin
PATH=$tools:$PATH

need_go() { command -v go >/dev/null || skip "$1 is built with Go, and there is no go"; }

# go_tool PACKAGE@VERSION: outside the sandbox, where there is a network.
# A program keeps which version it was built from, so one that is there already is kept.
go_tool() {
    local name
    name=$(basename "${1%@*}")
    need_go "$name"
    ! go version -m "$tools/$name" 2>/dev/null | grep "^[[:space:]]mod[[:space:]].*[[:space:]]${1#*@}\b" >/dev/null ||
        return 0
    note "installing $1"
    go_build "$name" go install "$1"
}

# go_build NAME COMMAND...: without the caller's flags.
go_build() {
    local name=$1 log
    shift
    log=$(env GOBIN="$tools" GOFLAGS= "$@" 2>&1) && return
    indent <<<"$log"
    skip "$name could not be built"
}

# private_home: nothing of the caller's settings, passwords and proxies reaches a client.
private_home() {
    in_sandbox || fail "the home directory is changed in the sandbox only"
    export HOME=$scratch/home
    mkdir -p "$HOME" "$scratch/nobody"
    unset DOCKER_CONFIG REGISTRY_AUTH_FILE REGCTL_CONFIG "${!XDG_@}" "${!HELM_@}"
    unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
}

# signed_out COMMAND...: as somebody who never signed in.
signed_out() { HOME=$scratch/nobody "$@"; }

# as_user USER PASSWORD COMMAND...: as somebody who signed in with docker, which most of them read.
as_user() {
    local home=$scratch/home-of-$1
    docker_config "$registry" "$1" "$2" | install -D -m 0600 /dev/stdin "$home/.docker/config.json"
    HOME=$home "${@:3}"
}

# docker_config WHERE USER PASSWORD [WHERE USER PASSWORD...]: a Docker config file.
# It is also what `kubectl create secret docker-registry` makes.
docker_config() {
    jq --null-input '$ARGS.positional | [_nwise(3)] | map({key: .[0], value:
        {username: .[1], password: .[2], auth: (.[1] + ":" + .[2] | @base64)}}) | {auths: from_entries}' --args "$@"
}

# prints_lines WANTED COMMAND...: what the command prints, sorted and in one line.
prints_lines() {
    local wanted=$1 got
    shift
    got=$("$@") || return
    got=$(sort <<<"$got" | xargs)
    [[ $got == "$wanted" ]] || { printf 'got "%s", wanted "%s"\n' "$got" "$wanted" && return 1; }
}

# blobs_were_mounted CLIENT REPOSITORY WANTED: since the mark, that many.
blobs_were_mounted() {
    local client=$1 repository=$2 wanted=$3
    [[ $(mounts "$repository") == "$wanted" ]] ||
        fail "$client: $(mounts "$repository") mounts into $repository, where $wanted were due"
    ok "$client: the registry mounted $wanted blobs (it answered the POST of an upload with 201)"
    shown "$client" mount
}

# blobs_were_uploaded CLIENT REPOSITORY WANTED: since the mark, none was mounted, and so many uploads began.
blobs_were_uploaded() {
    local client=$1 repository=$2 wanted=$3
    [[ $(mounts "$repository") == 0 && $(uploads "$repository") -ge $wanted ]] ||
        fail "$client: $(mounts "$repository") mounts, $(uploads "$repository") uploads, where 0 and $wanted were due"
    ok "$client: the registry mounted nothing (it answered with 202), and the client uploaded"
    shown "$client" no-mount
}

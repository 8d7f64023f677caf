#!/usr/bin/env bash
# BuildKit's registry cache in its older form, an index whose entries are layers: pushed, used again after everything local
# is gone and Berth has collected, taken over from a docker-registry, exported and pushed to a second Berth.
# shellcheck source=tests/interop/go-clients.sh
. "$(dirname "$0")/../interop/go-clients.sh"

buildkit=0.20.2
oras=oras.land/oras/cmd/oras@v1.3.6

prepare() {
    need_root
    need curl curl
    need jq jq
    need runc runc
    need docker-registry docker-registry
    need_go buildkitd
    go_tool $oras
    build_buildkit
    need_binaries
}

build_buildkit() {
    [[ ! -x $tools/buildctl || $("$tools/buildkitd" --version 2>/dev/null) != *" v$buildkit "* ]] || return 0
    note "building buildctl and buildkitd $buildkit, which takes some minutes"
    local flags="-s -w -X github.com/moby/buildkit/version.Version=v$buildkit"
    go_build buildkit env CGO_ENABLED=0 go -C "$root/tests/full/buildkit" build -ldflags "$flags" -o "$tools/" \
        github.com/moby/buildkit/cmd/buildctl github.com/moby/buildkit/cmd/buildkitd
}

enter_sandbox prepare

socket=unix://$scratch/buildkitd.sock
context=$scratch/context
cache=$registry/bk/app:buildcache
old_port=$(free_port)
old=$scratch/old

start_buildkitd() {
    printf '[registry."%s"]\n  ca = ["%s"]\n[registry."127.0.0.1:%s"]\n  http = true\n' \
        "$registry" "$certs/ca.pem" "$old_port" >"$scratch/buildkitd.toml"
    start buildkitd buildkitd --addr "$socket" --root "$scratch/buildkit" --config "$scratch/buildkitd.toml" \
        --oci-worker-snapshotter native --oci-worker-net host
    wait_for 60 buildkitd buildctl --addr "$socket" debug workers
    mkdir -p "$context" "$scratch/docker"
    head -c 300000 /dev/urandom >"$context/one"
    head -c 200000 /dev/urandom >"$context/two"
    printf 'FROM scratch AS first\nCOPY one /one\nFROM scratch\nCOPY --from=first /one /one\nCOPY two /two\n' >"$context/Dockerfile"
    docker_config "$registry" andrew "$andrew_password" >"$scratch/docker/config.json"
    export DOCKER_CONFIG=$scratch/docker
}

# build IMAGE ARGUMENT...
build() {
    buildctl --addr "$socket" build --progress plain --frontend dockerfile.v0 --local "context=$context" \
        --local "dockerfile=$context" --output "type=image,name=$1,push=true" "${@:2}"
}

exports_a_cache() {
    succeeds "buildctl pushes an image and its cache, an index of layers" \
        build "$registry/bk/app:1" --export-cache "type=registry,ref=$cache,mode=max,image-manifest=false"
    curl --silent --fail --cacert "$certs/ca.pem" --user "andrew:$andrew_password" \
        "https://$registry/v2/bk/app/manifests/buildcache" >"$scratch/cache.json"
    jq --exit-status '.manifests | length > 1 and any(.mediaType == "application/vnd.buildkit.cacheconfig.v0")' \
        "$scratch/cache.json" >/dev/null || fail "the cache is no index of blobs: $(<"$scratch/cache.json")"
    ok "which is an index of $(jq '.manifests | length' "$scratch/cache.json") blobs"
}

builds_from_it() {
    succeeds "everything local is gone" buildctl --addr "$socket" prune --all
    build "$registry/bk/app:$1" --import-cache "type=registry,ref=$2" >"$scratch/build.log" 2>&1 ||
        fail "the build with the cache: $(tail -n 3 "$scratch/build.log")"
    [[ $(grep -c CACHED "$scratch/build.log") -ge 2 ]] || fail "not built from the cache: $(<"$scratch/build.log")"
    ok "$3: built from the cache"
}

collection_keeps_it() {
    curl --silent --fail --cacert "$certs/ca.pem" --user "andrew:$andrew_password" --request DELETE \
        "https://$registry/v2/bk/app/manifests/1" || fail "deleting the image's tag"
    sleep 3
    succeeds "collection, where blobs stay two seconds" "$bin/registry-server" --config "$data/registry.toml" gc
    builds_from_it 2 "$cache" "after it"
    says "the list counts the cache" 0 'buildcache .*[0-9]' "$bin/registry-server" --config "$data/registry.toml" list bk/app
    says "verify finds nothing wrong" 0 ' 0 damaged' "$bin/registry-server" --config "$data/registry.toml" verify
}

goes_to_a_second_one() {
    succeeds "export" "$bin/registry-server" --config "$data/registry.toml" export bk/app:buildcache "$scratch/layout"
    succeeds "and from the layout to another repository, by a client" oras cp --from-oci-layout \
        "$scratch/layout:buildcache" --to-ca-file "$certs/ca.pem" "$registry/bk/copy:buildcache"
    builds_from_it 3 "$registry/bk/copy:buildcache" "the copy"
}

comes_from_docker_registry() {
    mkdir -p "$old"
    cat >"$scratch/old.yml" <<CONFIG
version: 0.1
storage: {filesystem: {rootdirectory: $old}}
http: {addr: "127.0.0.1:$old_port"}
CONFIG
    start docker-registry docker-registry serve "$scratch/old.yml"
    wait_for 30 docker-registry curl --silent --fail "http://127.0.0.1:$old_port/v2/"
    succeeds "buildctl pushes an image and its cache to docker-registry" build "127.0.0.1:$old_port/old/app:1" \
        --export-cache "type=registry,ref=127.0.0.1:$old_port/old/app:buildcache,mode=max,image-manifest=false"
    stop docker-registry || true
    stop registry-server
    says "import" 0 '2 tags' "$bin/registry-server" --config "$data/registry.toml" import --copy "$old"
    start registry-server "$bin/registry-server" --config "$data/registry.toml"
    wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
    builds_from_it 4 "$registry/old/app:buildcache" "the cache that docker-registry had"
}

# ----------------------------------------------------------------

succeeds "authctl init" init_berth
printf '\n[collection]\ngrace_secs = 2\n' >>"$data/registry.toml"
start auth-server "$bin/auth-server" --config "$data/auth.toml"
start registry-server "$bin/registry-server" --config "$data/registry.toml"
wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
trust_go
start_buildkitd
exports_a_cache
builds_from_it 1b "$cache" "with nothing local"
collection_keeps_it
goes_to_a_second_one
comes_from_docker_registry

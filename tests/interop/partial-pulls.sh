#!/usr/bin/env bash
# podman and zstd:chunked: of a layer in which some files changed, a pull fetches these alone, as several ranges at once.
# shellcheck source=tests/interop/containers.sh
. "$(dirname "$0")/containers.sh"

prepare() {
    need podman podman
    need curl curl
    need jq jq
    need_binaries
    make_containers_place
}

enter_sandbox prepare

app=$registry/team/files
files=$scratch/files

# What is taken out of other layers needs overlayfs, and says so in the storage's settings.
take_parts() {
    mkdir -p "$scratch/overlay"/{lower,upper,work,merged}
    mount -t overlay overlay -o "lowerdir=$scratch/overlay/lower,upperdir=$scratch/overlay/upper,workdir=$scratch/overlay/work" \
        "$scratch/overlay/merged" 2>/dev/null || skip "overlayfs is not to be had here, and podman fetches parts for nothing else"
    umount "$scratch/overlay/merged"
    cat >/etc/containers/storage.conf <<'CONF'
[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
[storage.options]
pull_options = {enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}
CONF
}

# build TAG: one layer of twenty files.
build() {
    printf 'FROM scratch\nCOPY files /files\n' >"$scratch/Containerfile"
    podman build --quiet --file "$scratch/Containerfile" --tag "$app:$1" "$scratch" >/dev/null 2>&1 || fail "podman build"
    succeeds "push of $1 as zstd:chunked" podman push --compression-format zstd:chunked "$app:$1"
}

change() {
    local n
    for n in "$@"; do
        head -c 1500000 /dev/urandom >"$files/$n"
    done
}

# Bytes of blobs that went out since the mark, and by how many answers with several ranges.
blob_bytes() {
    tail -n +$((log_marked + 1)) "$registry_log" | grep 'GET /v2/team/files/blobs/' |
        sed -n 's/.* sent_bytes=\([0-9]*\).*/\1/p' | awk '{ sum += $1 } END { print sum + 0 }'
}

pulls_parts() {
    podman image rm --all --force >/dev/null
    succeeds "pull of the first" podman pull "$app:1"
    log_mark
    succeeds "pull of the second, of which 4 of 20 files are new" podman pull "$app:2"
    log_since 'GET /v2/team/files/blobs/.*status=206' || fail "podman asked for no ranges: $(podman --version)"
    local bytes
    bytes=$(blob_bytes)
    ((bytes < 10000000)) || fail "$bytes bytes were fetched, where 4 files have 6,000,000"
    ok "$bytes bytes were fetched of a layer of $((20 * 1500000))"
    local mounted
    mounted=$(podman image mount "$app:2")
    diff --recursive "$mounted/files" "$files" >/dev/null || fail "the files are others"
    ok "and the files are those that were pushed"
    podman image umount "$app:2" >/dev/null
}

# ----------------------------------------------------------------

furnish_containers
take_parts
start_berth
trust_containers
printf '%s' "$andrew_password" | podman login --username andrew --password-stdin "$registry" >/dev/null
mkdir -p "$files"
# shellcheck disable=SC2046  # numbers
change $(seq 20)
build 1
change 3 7 8 15
build 2
pulls_parts

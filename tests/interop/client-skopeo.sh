#!/usr/bin/env bash
# skopeo from Debian: login, copy in and out, inspect, list, delete, sync, and copies between repositories.
# shellcheck source=tests/interop/containers.sh
. "$(dirname "$0")/containers.sh"

prepare() {
    need skopeo skopeo
    need curl curl
    need jq jq
    need_binaries
    make_containers_place
}

enter_sandbox prepare

app=docker://$registry/team/app

# sign_in_skopeo USER PASSWORD
sign_in_skopeo() { printf '%s' "$2" | skopeo login --username "$1" --password-stdin "$registry"; }

# lists IMAGE TAG...: exactly these tags.
lists() {
    local image=$1
    shift
    [[ $(skopeo list-tags "$image" | jq --raw-output '.Tags[]' | sort | xargs) == "$*" ]]
}

# same_image LAYOUT TAG LAYOUT TAG
same_image() { [[ -n $(layout_digest "$1" "$2") && $(layout_digest "$1" "$2") == "$(layout_digest "$3" "$4")" ]]; }

# ---------------------------------------------------------------- the checks

trust_is_needed() {
    refused "skopeo refuses the server while its CA is not in certs.d" 'x509|certificate' \
        sign_in_skopeo andrew "$andrew_password"
    trust_containers
}

login_is_needed() {
    refused "copy into a repository without login" "$denied" skopeo copy "oci:$scratch/image:one" "$app:1"
    refused "copy from a repository without login" "$denied" skopeo copy "$app:1" "oci:$scratch/out:1"
    logins_are_checked skopeo sign_in_skopeo
}

pushes_and_pulls() {
    succeeds "copy of an image into team/app:1" skopeo copy "oci:$scratch/image:one" "$app:1"
    shown skopeo push
    succeeds "copy out by tag" skopeo copy "$app:1" "oci:$scratch/by-tag:1"
    same_image "$scratch/image" one "$scratch/by-tag" 1 || fail "another image came out by tag"
    shown skopeo pull-tag
    local digest
    digest=$(layout_digest "$scratch/image" one)
    succeeds "copy out by digest" skopeo copy "$app@$digest" "oci:$scratch/by-digest:1"
    same_image "$scratch/image" one "$scratch/by-digest" 1 || fail "another image came out by digest"
    shown skopeo pull-digest
    succeeds "copy into a repository in docker's format" skopeo copy --format v2s2 "oci:$scratch/image:one" "$app:docker"
    succeeds "copy into a repository as a tar for docker" skopeo copy "$app:docker" "docker-archive:$scratch/docker.tar:app:1"
}

an_index_stays_whole() {
    succeeds "copy --all of an index" skopeo copy --all "oci:$scratch/image:many" "$app:many"
    succeeds "copy --all back" skopeo copy --all "$app:many" "oci:$scratch/many:many"
    same_image "$scratch/image" many "$scratch/many" many || fail "another index came back"
    arm64() { [[ $(skopeo --override-arch arm64 inspect "$app:many" | jq --raw-output .Architecture) == arm64 ]]; }
    succeeds "inspect picks the image of an architecture" arm64
    shown skopeo index
}

inspects_and_lists() {
    inspected() { [[ $(skopeo inspect "$app:1" | jq --raw-output .Digest) == "$(layout_digest "$scratch/image" one)" ]]; }
    succeeds "inspect" inspected
    succeeds "list-tags" lists "$app" 1 docker many
    shown skopeo tags
}

copies_between_repositories() {
    log_mark
    succeeds "copy to another repository" skopeo copy --all "$app:many" "docker://$registry/desk/copy:many"
    succeeds "and it has the same tags" lists "docker://$registry/desk/copy" many
    shown skopeo copy
    # skopeo mounts layers, and uploads the two small configurations.
    [[ $(mounts desk/copy) == 2 && $(uploads desk/copy) == 2 ]] ||
        fail "copy: $(mounts desk/copy) mounts and $(uploads desk/copy) uploads, where 2 and 2 were due"
    ok "both layers were mounted"
    shown skopeo mount
}

copies_without_right_on_the_source() {
    local creds=(--dest-creds "pusher:$pusher_password") only=docker://$registry/team/only:1
    # Words that desk/** does not have: skopeo would mount them from there.
    make_layout "$scratch/only" "words of team/only"
    succeeds "copy of another image into team/only" skopeo copy "oci:$scratch/only:one" "$only"
    refused "the pusher has no right on the source" "$denied" \
        skopeo copy "${creds[@]}" --src-creds "pusher:$pusher_password" "$only" "docker://$registry/desk/mine:1"
    log_mark
    succeeds "copy with a source that only the reader's password opens" \
        skopeo copy "${creds[@]}" --src-creds "reader:$reader_password" "$only" "docker://$registry/desk/mine:1"
    # Before skopeo mounts, it looks for the layer in the source, with the destination's login.
    log_since 'HEAD /v2/team/only/blobs/.*status=401' || fail "skopeo did not try to mount"
    [[ $(mounts desk/mine) == 0 && $(uploads desk/mine) == 2 ]] ||
        fail "copy: $(mounts desk/mine) mounts and $(uploads desk/mine) uploads, where none and 2 were due"
    ok "the layer was uploaded, since the pusher may not mount it"
    shown skopeo no-mount
    refused "the reader cannot push" "$denied" \
        skopeo copy --dest-creds "reader:$reader_password" "oci:$scratch/image:one" "$app:2"
}

syncs() {
    succeeds "sync of a repository to a directory" \
        skopeo sync --all --src docker --dest dir "$registry/team/app" "$scratch/synced"
    succeeds "sync of the directory to another repository" \
        skopeo sync --all --src dir --dest docker "$scratch/synced" "$registry/mirror"
    succeeds "and it has the same tags" lists "docker://$registry/mirror/app" 1 docker many
}

deletes() {
    refused "the pusher cannot delete" "$denied" \
        skopeo delete --creds "pusher:$pusher_password" "docker://$registry/desk/mine:1"
    succeeds "delete" skopeo delete "$app:many"
    refused "what was deleted is not there" 'manifest unknown|not found' skopeo inspect "$app:many"
    succeeds "and not in the list" lists "$app" 1 docker
    shown skopeo delete
}

anonymous_pulls_beside() {
    local image=docker://$registry/public/app:1
    succeeds "copy into public/app, signed in" skopeo copy "oci:$scratch/image:one" "$image"
    succeeds "copy out of it without a login" skopeo copy --src-no-creds "$image" "oci:$scratch/public:1"
    refused "copy into it without a login" "$denied" skopeo copy --dest-no-creds "oci:$scratch/image:one" "$image"
    refused "copy out of team/app without a login" "$denied" skopeo copy --src-no-creds "$app:1" "oci:$scratch/out:1"
    succeeds "logout" skopeo logout "$registry"
    succeeds "copy out of public/app after logout" skopeo copy "$image" "oci:$scratch/public:2"
    refused "copy out of team/app after logout" "$denied" skopeo copy "$app:1" "oci:$scratch/out:1"
    shown skopeo anonymous
}

# ----------------------------------------------------------------

client skopeo "$(version_of skopeo)"
lacks skopeo catalog
lacks skopeo referrers
furnish_containers
make_layout "$scratch/image" "skopeo's words"
start_berth
trust_is_needed
login_is_needed
pushes_and_pulls
an_index_stays_whole
inspects_and_lists
copies_between_repositories
copies_without_right_on_the_source
syncs
deletes
anonymous_pulls_beside
finish_matrix

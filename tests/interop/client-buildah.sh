#!/usr/bin/env bash
# buildah from Debian: an image from scratch, step by step, pushed and pulled; an index; mounts.
# shellcheck source=tests/interop/containers.sh
. "$(dirname "$0")/containers.sh"

prepare() {
    need buildah buildah
    need curl curl
    need jq jq
    need_binaries
    make_containers_place
}

enter_sandbox prepare

app=$registry/team/app

# sign_in_buildah USER PASSWORD
sign_in_buildah() { printf '%s' "$2" | buildah login --username "$1" --password-stdin "$registry"; }

# make_image IMAGE WORDS [ARCHITECTURE]: from scratch; its only layer holds the words.
make_image() {
    local container
    container=$(buildah from --arch "${3:-amd64}" scratch)
    printf '%s\n' "$2" >"$scratch/words"
    buildah copy --quiet "$container" "$scratch/words" /words >/dev/null
    buildah config --arch "${3:-amd64}" --author andrew --cmd '["/words"]' --label "words=$2" "$container"
    buildah commit --quiet --rm "$container" "$1"
}

forget_images() {
    buildah rmi --all --force >/dev/null
    [[ -z $(buildah images --quiet) ]] || fail "images are left in buildah's storage"
}

# has_words IMAGE WORDS: the layer and the configuration came whole.
has_words() {
    local container root_of status=0
    container=$(buildah from --pull-never "$1")
    root_of=$(buildah mount "$container")
    [[ $(<"$root_of/words") == "$2" ]] || status=1
    [[ $(buildah inspect --type image --format '{{.OCIv1.Config.Labels.words}}' "$1") == "$2" ]] || status=1
    buildah rm "$container" >/dev/null
    return "$status"
}

# ---------------------------------------------------------------- the checks

login_is_needed() {
    succeeds "from scratch, copy, config, commit" make_image "$app:1" "buildah's words"
    refused "buildah refuses the server while its CA is not in certs.d" 'x509|certificate' \
        sign_in_buildah andrew "$andrew_password"
    trust_containers
    refused "push without login" "$denied" buildah push "$app:1"
    logins_are_checked buildah sign_in_buildah
}

pushes_and_pulls() {
    succeeds "push" buildah push --digestfile "$scratch/digest" "$app:1"
    succeeds "push in docker's format" buildah push --format v2s2 "$app:1" "docker://$app:docker"
    shown buildah push
    forget_images
    succeeds "pull by tag" buildah pull "$app:1"
    succeeds "and its words and configuration are there" has_words "$app:1" "buildah's words"
    shown buildah pull-tag
    forget_images
    succeeds "pull by digest" buildah pull "$app@$(<"$scratch/digest")"
    succeeds "and its words and configuration are there" has_words "$app@$(<"$scratch/digest")" "buildah's words"
    shown buildah pull-digest
    forget_images
    succeeds "pull of what was pushed in docker's format" buildah pull "$app:docker"
}

an_index_stays_whole() {
    local arch
    succeeds "manifest create" buildah manifest create many
    for arch in amd64 arm64; do
        succeeds "an image for $arch" make_image "localhost/$arch" "buildah's words for $arch" "$arch"
        succeeds "manifest add" buildah manifest add --arch "$arch" many "localhost/$arch"
    done
    succeeds "manifest push --all" buildah manifest push --all --digestfile "$scratch/digest" many "docker://$app:many"
    forget_images
    succeeds "manifest inspect of what was pushed" has_both_architectures "$app:many"
    for arch in amd64 arm64; do
        succeeds "pull of the index for $arch" buildah pull --arch "$arch" "$app:many"
        succeeds "and the words for $arch came" has_words "$app:many" "buildah's words for $arch"
        forget_images
    done
    succeeds "pull of the index by digest" buildah pull "$app@$(<"$scratch/digest")"
    shown buildah index
}

has_both_architectures() {
    [[ $(buildah manifest inspect "$1" | jq --raw-output '.manifests[].platform.architecture' | sort | xargs) == "amd64 arm64" ]]
}

mounts_layers() {
    make_image "$app:mount" "words to mount" >/dev/null 2>&1
    succeeds "push to team/app" buildah push "$app:mount"
    log_mark
    succeeds "push of the same image to desk/copy" buildah push "$app:mount" "docker://$registry/desk/copy:1"
    mounted desk/copy || fail "no layer was mounted"
    ok "the layer was mounted from team/app"
    shown buildah mount
}

uploads_what_it_may_not_mount() {
    make_image "$registry/team/only:1" "words of team/only" >/dev/null 2>&1
    succeeds "push to team/only" buildah push "$registry/team/only:1"
    succeeds "the pusher signs in, who has no right on team/only" sign_in_buildah pusher "$pusher_password"
    log_mark
    succeeds "push of the same image to desk/mine" \
        buildah push "$registry/team/only:1" "docker://$registry/desk/mine:1"
    # Before buildah mounts, it looks for the layer there.
    log_since 'HEAD /v2/team/only/blobs/.*status=401' || fail "buildah did not try to mount"
    [[ $(mounts desk/mine) == 0 && $(uploads desk/mine) == 2 ]] ||
        fail "$(mounts desk/mine) mounts and $(uploads desk/mine) uploads, where none and 2 were due"
    ok "the layer was uploaded, since the pusher may not mount it"
    forget_images
    succeeds "pull from desk/mine" buildah pull "$registry/desk/mine:1"
    refused "the pusher may not pull from team/only" "$denied" buildah pull "$registry/team/only:1"
    shown buildah no-mount
}

anonymous_pulls_beside() {
    local public=$registry/public/app:1
    sign_in_buildah andrew "$andrew_password" >/dev/null 2>&1
    make_image "$public" "words for everybody" >/dev/null 2>&1
    succeeds "push to public/app, signed in" buildah push "$public"
    refused "push to it without a login" "$denied" without_login buildah push "$public"
    forget_images
    succeeds "pull of it without a login" without_login buildah pull "$public"
    refused "pull of team/app without a login" "$denied" without_login buildah pull "$app:1"
    succeeds "push to it, still signed in" buildah push "$public" "docker://$registry/public/app:2"
    succeeds "logout" buildah logout "$registry"
    forget_images
    succeeds "pull of public/app after logout" buildah pull "$public"
    refused "pull of team/app after logout" "$denied" buildah pull "$app:1"
    shown buildah anonymous
}

# ----------------------------------------------------------------

client buildah "$(version_of buildah)"
for feature in tags catalog delete copy referrers; do
    lacks buildah "$feature"
done
furnish_containers
start_berth
login_is_needed
pushes_and_pulls
an_index_stays_whole
mounts_layers
uploads_what_it_may_not_mount
anonymous_pulls_beside
finish_matrix

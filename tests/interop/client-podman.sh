#!/usr/bin/env bash
# podman from Debian: build, login, push, pull, search, an index, mounts.
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

app=$registry/team/app

# sign_in_podman USER PASSWORD
sign_in_podman() { printf '%s' "$2" | podman login --username "$1" --password-stdin "$registry"; }

# make_image IMAGE WORDS [ARCHITECTURE]: its only layer holds the words, so other words are another layer.
make_image() {
    local dir
    dir=$(mktemp -d -p "$scratch")
    printf '%s\n' "$2" >"$dir/words"
    printf 'FROM scratch\nCOPY words /words\nCMD ["/words"]\n' >"$dir/Containerfile"
    podman build --quiet --platform "linux/${3:-amd64}" --tag "$1" "$dir" >/dev/null 2>&1 || fail "podman build of $1"
}

forget_images() {
    podman image rm --all --force >/dev/null
    [[ -z $(podman image ls --all --quiet) ]] || fail "images are left in podman's storage"
}

image_id() { podman image inspect --format '{{.Id}}' "$1"; }

# ---------------------------------------------------------------- the checks

login_is_needed() {
    make_image "$app:1" "podman's words"
    refused "podman refuses the server while its CA is not in certs.d" 'x509|certificate' \
        sign_in_podman andrew "$andrew_password"
    trust_containers
    refused "push without login" "$denied" podman push "$app:1"
    logins_are_checked podman sign_in_podman
    is_signed_in() { [[ $(podman login --get-login "$registry") == andrew ]]; }
    succeeds "podman knows who is signed in" is_signed_in
}

pushes_and_pulls() {
    local id
    id=$(image_id "$app:1")
    succeeds "push" podman push --digestfile "$scratch/digest" "$app:1"
    succeeds "push in docker's format" podman push --format v2s2 "$app:1" "docker://$app:docker"
    shown podman push
    forget_images
    succeeds "pull by tag" podman pull "$app:1"
    [[ $(image_id "$app:1") == "$id" ]] || fail "another image came by tag"
    shown podman pull-tag
    forget_images
    succeeds "pull by digest" podman pull "$app@$(<"$scratch/digest")"
    [[ $(image_id "$app@$(<"$scratch/digest")") == "$id" ]] || fail "another image came by digest"
    shown podman pull-digest
    forget_images
    succeeds "pull of what was pushed in docker's format" podman pull "$app:docker"
}

an_index_stays_whole() {
    local arch
    succeeds "manifest create" podman manifest create many
    for arch in amd64 arm64; do
        make_image "localhost/$arch" "podman's words for $arch" "$arch"
        succeeds "manifest add of an image for $arch" podman manifest add --arch "$arch" many "containers-storage:localhost/$arch"
    done
    succeeds "manifest push --all" podman manifest push --all --digestfile "$scratch/digest" many "docker://$app:many"
    forget_images
    succeeds "manifest inspect of what was pushed" has_both_architectures "$app:many"
    for arch in amd64 arm64; do
        succeeds "pull of the index for $arch" podman pull --arch "$arch" "$app:many"
        [[ $(podman image inspect --format '{{.Architecture}}' "$app:many") == "$arch" ]] ||
            fail "another architecture than $arch came"
        forget_images
    done
    succeeds "pull of the index by digest" podman pull "$app@$(<"$scratch/digest")"
    shown podman index
}

has_both_architectures() {
    [[ $(podman manifest inspect "$1" | jq --raw-output '.manifests[].platform.architecture' | sort | xargs) == "amd64 arm64" ]]
}

# searched WORD ARGUMENTS...: one of the names that podman search finds.
searched() { podman search --format '{{.Name}} {{.Tag}}' "${@:2}" | grep --quiet --extended-regexp "$1"; }

searches() {
    succeeds "search --list-tags" searched "^$app +many\$" --list-tags "$app"
    shown podman tags
    make_image "$registry/other/thing:1" "words of other/thing"
    succeeds "push to other/thing" podman push "$registry/other/thing:1"
    succeeds "search finds a repository" searched "^$registry/other/thing" "$registry/thing"
    succeeds "search without a word lists the repositories" searched "^$app" "$registry/"
    sign_in_podman reader "$reader_password" >/dev/null 2>&1
    succeeds "search lists what the reader may pull" searched "^$app" "$registry/"
    ! searched "^$registry/other/thing" "$registry/" || fail "the reader was told of a repository that it may not pull"
    ok "and nothing else"
    refused "the reader cannot push" "$denied" podman push "$registry/other/thing:1" "docker://$app:2"
    sign_in_podman andrew "$andrew_password" >/dev/null 2>&1
    shown podman catalog
}

mounts_layers() {
    make_image "$app:mount" "words to mount"
    succeeds "push to team/app" podman push "$app:mount"
    log_mark
    succeeds "push of the same image to desk/copy" podman push "$app:mount" "docker://$registry/desk/copy:1"
    mounted desk/copy || fail "no layer was mounted"
    ok "the layer was mounted from team/app"
    shown podman mount
}

uploads_what_it_may_not_mount() {
    make_image "$registry/team/only:1" "words of team/only"
    succeeds "push to team/only" podman push "$registry/team/only:1"
    succeeds "the pusher signs in, who has no right on team/only" sign_in_podman pusher "$pusher_password"
    log_mark
    succeeds "push of the same image to desk/mine" podman push "$registry/team/only:1" "docker://$registry/desk/mine:1"
    # Before podman mounts, it looks for the layer there.
    log_since 'HEAD /v2/team/only/blobs/.*status=401' || fail "podman did not try to mount"
    [[ $(mounts desk/mine) == 0 && $(uploads desk/mine) == 2 ]] ||
        fail "$(mounts desk/mine) mounts and $(uploads desk/mine) uploads, where none and 2 were due"
    ok "the layer was uploaded, since the pusher may not mount it"
    forget_images
    succeeds "pull from desk/mine" podman pull "$registry/desk/mine:1"
    refused "the pusher may not pull from team/only" "$denied" podman pull "$registry/team/only:1"
    shown podman no-mount
}

anonymous_pulls_beside() {
    local public=$registry/public/app:1
    sign_in_podman andrew "$andrew_password" >/dev/null 2>&1
    make_image "$public" "words for everybody"
    succeeds "push to public/app, signed in" podman push "$public"
    refused "push to it without a login" "$denied" without_login podman push "$public"
    forget_images
    succeeds "pull of it without a login" without_login podman pull "$public"
    refused "pull of team/app without a login" "$denied" without_login podman pull "$app:1"
    succeeds "push to it, still signed in" podman push "$public" "docker://$registry/public/app:2"
    succeeds "logout" podman logout "$registry"
    forget_images
    succeeds "pull of public/app after logout" podman pull "$public"
    refused "pull of team/app after logout" "$denied" podman pull "$app:1"
    shown podman anonymous
}

# ----------------------------------------------------------------

client podman "$(version_of podman)"
for feature in delete copy referrers; do
    lacks podman "$feature"
done
furnish_containers
start_berth
login_is_needed
pushes_and_pulls
an_index_stays_whole
searches
mounts_layers
uploads_what_it_may_not_mount
anonymous_pulls_beside
finish_matrix

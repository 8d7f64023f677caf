#!/usr/bin/env bash
# crane: login, push and pull of images and of an index, list, catalog, delete, and copies between repositories.
# shellcheck source=tests/interop/go-clients.sh
. "$(dirname "$0")/go-clients.sh"

crane=github.com/google/go-containerregistry/cmd/crane@v0.22.1

prepare() {
    need_root
    go_tool $crane
    need ip iproute2
    need jq jq
    need_binaries
}

enter_sandbox prepare

app=$registry/team/app
layout=$scratch/image

# crane's login asks nobody: the next command tells whether the password is right.
sign_in_crane() {
    printf '%s' "$2" | crane auth login "$registry" --username "$1" --password-stdin && crane catalog "$registry"
}

# layout_with TAG: the layout with this entry alone, as crane wants it.
layout_with() {
    local dir=$scratch/only-$1
    cp -r "$layout" "$dir"
    jq --arg digest "$(layout_digest "$layout" "$1")" '.manifests |= map(select(.digest == $digest))' \
        "$layout/index.json" >"$dir/index.json"
    printf '%s\n' "$dir"
}

# pulls REFERENCE TAG: into a layout, and it is what the tag of our layout is.
pulls() {
    local dir
    dir=$(mktemp -d -p "$scratch")
    crane pull --format oci "$1" "$dir" && prints_lines "$(layout_digest "$layout" "$2")" \
        jq --raw-output '.manifests[].digest' "$dir/index.json"
}

# ---------------------------------------------------------------- the checks

trust_is_needed() {
    refused "crane refuses the server while it does not know its CA" 'x509|certificate' crane catalog "$registry"
    trust_go
}

login_is_needed() {
    refused "push without login" "$denied" crane push "$one" "$app:1"
    refused "pull without login" "$denied" crane manifest "$app:1"
    logins_are_checked crane sign_in_crane
}

pushes_and_pulls() {
    succeeds "push of an image" crane push "$one" "$app:1"
    shown crane push
    succeeds "pull by tag" pulls "$app:1" one
    shown crane pull-tag
    succeeds "pull by digest" pulls "$app@$(layout_digest "$layout" one)" one
    shown crane pull-digest
    succeeds "validate reads all of it" crane validate --remote "$app:1"
    exported() { crane export "$app:1" - | tar --extract --to-stdout words | grep "crane's words"; }
    succeeds "export unpacks the layer" exported
    succeeds "tag" crane tag "$app:1" 2
    refused "a user who may only pull cannot push" "$denied" \
        as_user reader "$reader_password" crane push "$one" "$app:3"
}

an_index_stays_whole() {
    succeeds "push of an index" crane push "$(layout_with many)" "$app:many"
    succeeds "pull of an index" pulls "$app:many" many
    succeeds "validate reads the images of both architectures" crane validate --remote "$app:many"
    arm64() { prints_lines arm64 jq --raw-output .architecture <(crane config --platform linux/arm64 "$app:many"); }
    succeeds "config of the image of an architecture" arm64
    succeeds "index append makes an index in the registry" \
        crane index append --manifest "$app:1" --tag "$app:appended"
    shown crane index
}

catalog_of_the_pusher() { prints_lines "" as_user pusher "$pusher_password" crane catalog "$registry"; }

lists() {
    succeeds "ls" prints_lines "1 2 appended many" crane ls "$app"
    shown crane tags
    succeeds "catalog" prints_lines "team/app" crane catalog "$registry"
    succeeds "catalog shows nothing of what the user may not pull" \
        catalog_of_the_pusher
    shown crane catalog
}

copies_between_repositories() {
    log_mark
    succeeds "copy to another repository" crane copy "$app:many" "$registry/desk/copy:many"
    succeeds "and it is the same index" pulls "$registry/desk/copy:many" many
    shown crane copy
    # Two layers and two configurations.
    blobs_were_mounted crane desk/copy 4
}

# crane takes another user for a repository that has a login of its own.
copies_without_right_on_the_source() {
    local home=$scratch/two-users
    docker_config "$registry" pusher "$pusher_password" "$app" andrew "$andrew_password" |
        install -D -m 0600 /dev/stdin "$home/.docker/config.json"
    log_mark
    succeeds "copy to a repository by a user who has no right on the source" \
        env HOME="$home" crane copy "$app:1" "$registry/desk/mine:1"
    blobs_were_uploaded crane desk/mine 2
    succeeds "and it is the same image" pulls "$registry/desk/mine:1" one
}

deletes() {
    refused "a user who may push cannot delete" "$denied" \
        as_user pusher "$pusher_password" crane delete "$registry/desk/mine:1"
    succeeds "delete of a tag" crane delete "$app:2"
    succeeds "the tag is gone, and the image is not" prints_lines "1 appended many" crane ls "$app"
    succeeds "delete by digest" crane delete "$registry/desk/copy@$(layout_digest "$layout" many)"
    refused "what was deleted is not there" 'MANIFEST_UNKNOWN|not found' crane manifest "$registry/desk/copy:many"
    shown crane delete
}

anonymous_pulls_beside() {
    local public=$registry/public/app:1
    succeeds "push to public/app, signed in" crane push "$one" "$public"
    succeeds "pull of it without a login" signed_out crane validate --remote "$public"
    refused "push to it without a login" "$denied" signed_out crane push "$one" "$registry/public/app:2"
    succeeds "logout" crane auth logout "$registry"
    succeeds "pull of public/app after logout" pulls "$public" one
    refused "pull of team/app after logout" "$denied" crane manifest "$app:1"
    shown crane anonymous
}

# ----------------------------------------------------------------

client crane "$(crane version)"
lacks crane referrers
private_home
make_layout "$layout" "crane's words"
one=$(layout_with one)
start_berth
trust_is_needed
login_is_needed
pushes_and_pulls
an_index_stays_whole
lists
copies_between_repositories
copies_without_right_on_the_source
deletes
anonymous_pulls_beside
finish_matrix

#!/usr/bin/env bash
# regctl: login, push and pull of images and an index, artifacts and referrers, list, delete,
# and copies between repositories.
# shellcheck source=tests/interop/go-clients.sh
. "$(dirname "$0")/go-clients.sh"

regctl=github.com/regclient/regclient/cmd/regctl@v0.11.7

prepare() {
    need_root
    go_tool $regctl
    need ip iproute2
    need jq jq
    need_binaries
}

enter_sandbox prepare

app=$registry/team/app
layout=$scratch/image

# sign_in_regctl USER PASSWORD
sign_in_regctl() { printf '%s' "$2" | regctl registry login "$registry" --user "$1" --pass-stdin; }

# pulls REFERENCE TAG: into a layout, and it is what the tag of our layout is.
pulls() {
    local dir
    dir=$(mktemp -d -p "$scratch")
    regctl image copy "$1" "ocidir://$dir:copy" &&
        prints_lines "$(layout_digest "$layout" "$2")" layout_digest "$dir" copy
}

# ---------------------------------------------------------------- the checks

trust_is_needed() {
    refused "regctl refuses the server while it does not know its CA" 'x509|certificate' \
        regctl repo ls "$registry"
    trust_go
}

login_is_needed() {
    refused "push without login" "$denied" regctl image copy "ocidir://$layout:one" "$app:1"
    refused "pull without login" "$denied" regctl manifest get "$app:1"
    logins_are_checked regctl sign_in_regctl
}

pushes_and_pulls() {
    succeeds "push of an image" regctl image copy "ocidir://$layout:one" "$app:1"
    shown regctl push
    succeeds "pull by tag" pulls "$app:1" one
    shown regctl pull-tag
    succeeds "pull by digest" pulls "$app@$(layout_digest "$layout" one)" one
    shown regctl pull-digest
    succeeds "export as a tar for docker" regctl image export "$app:1" "$scratch/image.tar"
    succeeds "import of the tar" regctl image import "$app:imported" "$scratch/image.tar"
    words() { regctl image get-file "$app:1" words | grep "regctl's words"; }
    succeeds "image get-file reads a layer" words
    refused "a user who may only pull cannot push" "$denied" \
        as_user reader "$reader_password" regctl image copy "ocidir://$layout:one" "$app:3"
}

# A chunk at a time, as regctl does with blobs beyond a limit of its settings.
pushes_in_chunks() {
    head -c 300000 /dev/urandom >"$scratch/blob"
    local digest
    digest=sha256:$(sha256sum "$scratch/blob" | cut -d ' ' -f 1)
    log_mark
    succeeds "settings for chunks of 100 kB" regctl registry set "$registry" --blob-max 100000 --blob-chunk 100000
    chunked() { regctl blob put "$app" <"$scratch/blob" && regctl blob get "$app" "$digest" | cmp - "$scratch/blob"; }
    succeeds "blob put in chunks, and blob get" chunked
    [[ $(count_since 'PATCH /v2/team/app/blobs/uploads/.*status=202') == 3 ]] || fail "regctl did not push in chunks"
    succeeds "settings without chunks" regctl registry set "$registry" --blob-max -1 --blob-chunk 0
}

an_index_stays_whole() {
    succeeds "push of an index" regctl image copy "ocidir://$layout:many" "$app:many"
    succeeds "pull of an index" pulls "$app:many" many
    arm64() { prints_lines arm64 regctl image config --platform linux/arm64 --format '{{.Architecture}}' "$app:many"; }
    succeeds "config of the image of an architecture" arm64
    succeeds "index create" regctl index create "$app:made" --ref "$app:1" --platform linux/amd64
    shown regctl index
}

lists() {
    succeeds "tag ls" prints_lines "1 imported made many" regctl tag ls "$app"
    succeeds "tag ls by pages" prints_lines "made many" regctl tag ls --last imported --limit 2 "$app"
    shown regctl tags
    succeeds "repo ls" prints_lines "team/app" regctl repo ls "$registry"
    shown regctl catalog
}

# kinds_of REFERENCE [OPTION...]: the types of what has it as its subject.
kinds_of() { regctl artifact list "$1" --format '{{range .Descriptors}}{{println .ArtifactType}}{{end}}' "${@:2}"; }

# attach REFERENCE TYPE
attach() { regctl artifact put --artifact-type "$2" --subject "$1" <<<"$2 of $1"; }

attaches() {
    local both="application/vnd.berth.sbom application/vnd.berth.signature"
    log_mark
    succeeds "artifact put with a subject" attach "$app:many" application/vnd.berth.sbom
    succeeds "artifact put of a second one" attach "$app:many" application/vnd.berth.signature
    succeeds "artifact list" prints_lines "$both" kinds_of "$app:many"
    succeeds "artifact list of one type" prints_lines application/vnd.berth.sbom \
        kinds_of "$app:many" --filter-artifact-type application/vnd.berth.sbom
    log_since 'GET /v2/team/app/referrers/sha256:.*status=200' || fail "regctl did not ask for referrers"
    succeeds "no tag stands in for the referrers" prints_lines "1 imported made many" regctl tag ls "$app"
    succeeds "copy with its artifacts" regctl image copy --referrers "$app:many" "$registry/desk/attached:many"
    succeeds "and they are found at the copy" prints_lines "$both" kinds_of "$registry/desk/attached:many"
    succeeds "artifact tree" regctl artifact tree "$registry/desk/attached:many"
    shown regctl referrers
}

copies_between_repositories() {
    log_mark
    succeeds "copy to another repository" regctl image copy "$app:many" "$registry/desk/copy:many"
    succeeds "and it is the same index" pulls "$registry/desk/copy:many" many
    shown regctl copy
    # Two layers and two configurations.
    blobs_were_mounted regctl desk/copy 4
}

# regctl asks to mount whatever it pushes, from wherever it is.
pushes_what_it_may_not_mount() {
    local other=$scratch/other
    make_layout "$other" "words of team/only"
    succeeds "push of another image to team/only" regctl image copy "ocidir://$other:one" "$registry/team/only:1"
    log_mark
    succeeds "push of the same image by a user who has no right there" \
        as_user pusher "$pusher_password" regctl image copy "ocidir://$other:one" "$registry/desk/mine:1"
    blobs_were_uploaded regctl desk/mine 2
    log_mark
    succeeds "push of the same image by a user who has" \
        regctl image copy "ocidir://$other:one" "$registry/desk/again:1"
    blobs_were_mounted regctl desk/again 2
    refused "a copy by a user who may not read the source" "$denied" \
        as_user pusher "$pusher_password" regctl image copy "$registry/team/only:1" "$registry/desk/mine:2"
}

deletes() {
    local mine
    mine=$registry/desk/mine@$(layout_digest "$scratch/other" one)
    refused "a user who may push cannot delete" "$denied" \
        as_user pusher "$pusher_password" regctl manifest delete "$mine"
    succeeds "tag delete" regctl tag delete "$app:imported"
    succeeds "the tag is gone, and its image is not" prints_lines "1 made many" regctl tag ls "$app"
    succeeds "manifest delete" regctl manifest delete "$registry/desk/copy@$(layout_digest "$layout" many)"
    refused "what was deleted is not there" 'not found' regctl manifest get "$registry/desk/copy:many"
    shown regctl delete
}

anonymous_pulls_beside() {
    local public=$registry/public/app
    succeeds "push to public/app, signed in" regctl image copy "ocidir://$layout:one" "$public:1"
    succeeds "pull of it without a login" signed_out pulls "$public:1" one
    refused "push to it without a login" "$denied" signed_out regctl image copy "ocidir://$layout:one" "$public:2"
    succeeds "logout" regctl registry logout "$registry"
    succeeds "pull of public/app after logout" pulls "$public:1" one
    refused "pull of team/app after logout" "$denied" regctl manifest get "$app:1"
    shown regctl anonymous
}

# ----------------------------------------------------------------

client regctl "$(regctl version --format '{{.VCSTag}}')"
private_home
make_layout "$layout" "regctl's words"
start_berth
trust_is_needed
login_is_needed
pushes_and_pulls
pushes_in_chunks
an_index_stays_whole
lists
attaches
copies_between_repositories
pushes_what_it_may_not_mount
deletes
anonymous_pulls_beside
finish_matrix

#!/usr/bin/env bash
# The official conformance suite of the OCI distribution specification, over TLS, with users and tokens on:
# as a user who may do everything, and read-only as one who may only pull.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

# shellcheck source=tests/interop/suite.sh
. "$root/tests/interop/suite.sh"

preloaded=team/preloaded

prepare() {
    need_root
    need curl curl
    need jq jq
    need_binaries
    need_suite
}

enter_sandbox prepare

# shellcheck source=tests/interop/stack.sh
. "$root/tests/interop/stack.sh"

# ---------------------------------------------------------------- what changes between the settings

# Sparse images and indexes are refused unless the configuration says otherwise.
accept_sparse_manifests() {
    stop registry-server || fail "registry-server ended with $? on SIGTERM"
    printf '\n[limits]\nsparse_manifests = true\n' >>"$data/registry.toml"
    start registry-server "$bin/registry-server" --config "$data/registry.toml"
    wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
}

# ---------------------------------------------------------------- content for a user who may only pull

# as USER PASSWORD CURL-ARGUMENTS...
as() { curl_berth "$1" "$2" "repository:$preloaded:pull,push" --fail --show-error "${@:3}"; }

digest_of() { printf 'sha256:%s' "$(sha256sum "$1" | cut --delimiter ' ' --fields 1)"; }

push_blob() {
    as andrew "$andrew_password" --header 'Content-Type: application/octet-stream' --data-binary "@$1" \
        "https://$registry/v2/$preloaded/blobs/uploads/?digest=$(digest_of "$1")"
}

# push_manifest FILE REFERENCE
push_manifest() {
    as andrew "$andrew_password" --upload-file "$1" --header 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
        "https://$registry/v2/$preloaded/manifests/$2"
}

# descriptor KIND FILE
descriptor() {
    printf '{"mediaType": "application/vnd.oci.image.%s", "digest": "%s", "size": %d}' \
        "$1" "$(digest_of "$2")" "$(stat --format %s "$2")"
}

# manifest [SUBJECT-FILE]
manifest() {
    printf '{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": %s, "layers": [%s]%s}' \
        "$(descriptor config.v1+json config)" "$(descriptor layer.v1.tar layer)" \
        "${1:+, \"subject\": $(descriptor manifest.v1+json "$1")}"
}

# An image with a tag, and an artifact that has it as its subject.
preload() {
    cd "$scratch"
    printf '{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}' >config
    head -c 10000 /dev/urandom >layer
    manifest >image
    manifest image >artifact
    push_blob config && push_blob layer && push_manifest image 1.0 && push_manifest artifact "$(digest_of artifact)"
}

reader_pushes() { as reader "$reader_password" --request POST "https://$registry/v2/$preloaded/blobs/uploads/"; }

# What pushes and deletes is off, since this user may neither.
# So is the check of Docker-Content-Digest on manifests: for read-only data this version of the suite looks for
# the header without having kept the answer. The setting before this one checks it.
read_only() {
    local image artifact config layer
    succeeds "andrew pushes an image, and an artifact about it" preload
    refused "the reader cannot push" 401 reader_pushes
    image=$(digest_of "$scratch/image") artifact=$(digest_of "$scratch/artifact")
    config=$(digest_of "$scratch/config") layer=$(digest_of "$scratch/layer")
    run_suite read-only reader "$reader_password" OCI_VERSION=dev OCI_REPO1="$preloaded" OCI_API_PUSH=false \
        OCI_API_BLOBS_DELETE=false OCI_API_MANIFESTS_DELETE=false OCI_API_TAGS_DELETE=false \
        OCI_API_MANIFESTS_DIGEST_HEADER=false OCI_RO_DATA_TAGS=1.0 OCI_RO_DATA_MANIFESTS="$image $artifact" \
        OCI_RO_DATA_BLOBS="$config $layer" OCI_RO_DATA_REFERRERS="$image"
}

# ----------------------------------------------------------------

start_berth
run_suite 1.1 andrew "$andrew_password" OCI_VERSION=1.1
accept_sparse_manifests
run_suite dev-sparse andrew "$andrew_password" OCI_VERSION=dev OCI_DATA_SPARSE=true
read_only

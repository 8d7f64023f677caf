#!/usr/bin/env bash
# oras: login, push and pull of files, an index, attach and discover, list, delete, and copies between repositories.
# shellcheck source=tests/interop/go-clients.sh
. "$(dirname "$0")/go-clients.sh"

oras=oras.land/oras/cmd/oras@v1.3.6

prepare() {
    need_root
    go_tool $oras
    need ip iproute2
    need jq jq
    need_binaries
}

enter_sandbox prepare

files=$registry/team/files
app=$registry/team/app
layout=$scratch/image
work=$scratch/work
out=$scratch/out

# sign_in_oras USER PASSWORD
sign_in_oras() { printf '%s' "$2" | oras login "$registry" --username "$1" --password-stdin; }

# push_files REFERENCE [OPTION...]: oras takes the names from where it stands.
push_files() {
    (cd "$work" && oras push --no-tty --artifact-type application/vnd.berth.words "${@:2}" "$1" \
        words.txt:text/plain more.bin)
}

# pulls REFERENCE: the files, byte for byte.
pulls() {
    rm -rf "$out"
    oras pull --no-tty --output "$out" "$1" && diff --recursive "$work" "$out"
}

digest_of() { oras manifest fetch --descriptor "$1" | jq --raw-output .digest; }

# ---------------------------------------------------------------- the checks

trust_is_needed() {
    refused "oras refuses the server while it does not know its CA" 'x509|certificate' \
        sign_in_oras andrew "$andrew_password"
    trust_go
}

login_is_needed() {
    refused "push without login" "$denied" push_files "$files:1"
    refused "pull without login" "$denied" oras pull --output "$out" "$files:1"
    logins_are_checked oras sign_in_oras
}

pushes_and_pulls() {
    succeeds "push of files" push_files "$files:1"
    shown oras push
    succeeds "pull by tag" pulls "$files:1"
    shown oras pull-tag
    succeeds "pull by digest" pulls "$files@$(digest_of "$files:1")"
    shown oras pull-digest
    succeeds "tag" oras tag "$files:1" 2
    refused "a user who may only pull cannot push" "$denied" as_user reader "$reader_password" push_files "$files:3"
}

blobs() {
    local digest
    digest=sha256:$(sha256sum "$scratch/blob" | cut -d ' ' -f 1)
    succeeds "blob push" oras blob push --no-tty "$files@$digest" "$scratch/blob"
    fetched() {
        oras blob fetch --no-tty --output "$scratch/fetched" "$files@$digest" && cmp "$scratch/blob" "$scratch/fetched"
    }
    succeeds "blob fetch" fetched
    succeeds "blob delete" oras blob delete --force "$files@$digest"
    refused "the blob is gone" 'not found' oras blob fetch --no-tty --output - "$files@$digest"
}

an_index_stays_whole() {
    succeeds "copy of an index from a layout" oras cp --no-tty --from-oci-layout "$layout:many" "$app:many"
    back() {
        oras cp --no-tty --to-oci-layout "$app:many" "$scratch/back:many" &&
            prints_lines "$(layout_digest "$layout" many)" layout_digest "$scratch/back" many
    }
    succeeds "and back" back
    arm64() {
        prints_lines arm64 jq --raw-output .architecture \
            <(oras manifest fetch-config --platform linux/arm64 "$app:many")
    }
    succeeds "config of the image of an architecture" arm64
    succeeds "manifest index create" oras manifest index create "$app:made" "$(layout_digest "$layout" one)"
    shown oras index
}

lists() {
    succeeds "repo tags" prints_lines "made many" oras repo tags "$app"
    shown oras tags
    succeeds "repo ls" prints_lines "team/app team/files" oras repo ls "$registry"
    shown oras catalog
}

# kinds_of REFERENCE [OPTION...]: the types of what has it as its subject.
kinds_of() { oras discover --format json "${@:2}" "$1" | jq --raw-output '.referrers[]?.artifactType'; }

# attach REFERENCE TYPE FILE
attach() { (cd "$work" && oras attach --no-tty --artifact-type "$2" "$1" "$3"); }

attaches() {
    local both="application/vnd.berth.sbom application/vnd.berth.signature"
    log_mark
    succeeds "attach" attach "$app:many" application/vnd.berth.sbom words.txt
    succeeds "attach of a second one" attach "$app:many" application/vnd.berth.signature more.bin
    succeeds "discover" prints_lines "$both" kinds_of "$app:many"
    succeeds "discover of one type" prints_lines application/vnd.berth.sbom \
        kinds_of "$app:many" --artifact-type application/vnd.berth.sbom
    log_since 'GET /v2/team/app/referrers/sha256:.*status=200' || fail "oras did not ask for referrers"
    succeeds "no tag stands in for the referrers" prints_lines "made many" oras repo tags "$app"
    succeeds "copy with its artifacts" oras cp --no-tty --recursive "$app:many" "$registry/desk/attached:many"
    succeeds "and they are found at the copy" prints_lines "$both" kinds_of "$registry/desk/attached:many"
    shown oras referrers
}

copies_between_repositories() {
    log_mark
    succeeds "copy to another repository" oras cp --no-tty "$files:1" "$registry/desk/copy:1"
    succeeds "and it holds the same files" pulls "$registry/desk/copy:1"
    shown oras copy
    # Two files and the empty configuration.
    blobs_were_mounted oras desk/copy 3
}

# With a file of logins per side oras believes that one user reads and writes, and asks to mount.
copies_without_right_on_the_source() {
    docker_config "$registry" andrew "$andrew_password" >"$scratch/andrew.json"
    docker_config "$registry" pusher "$pusher_password" >"$scratch/pusher.json"
    log_mark
    succeeds "copy to a repository by a user who has no right on the source" \
        oras cp --no-tty --from-registry-config "$scratch/andrew.json" --to-registry-config "$scratch/pusher.json" \
        "$files:1" "$registry/desk/mine:1"
    blobs_were_uploaded oras desk/mine 3
    succeeds "and it holds the same files" pulls "$registry/desk/mine:1"
}

deletes() {
    refused "a user who may push cannot delete" "$denied" \
        as_user pusher "$pusher_password" oras manifest delete --force "$registry/desk/mine:1"
    succeeds "manifest delete" oras manifest delete --force "$registry/desk/copy:1"
    refused "what was deleted is not there" 'not found|manifest unknown' oras manifest fetch "$registry/desk/copy:1"
    shown oras delete
}

anonymous_pulls_beside() {
    local public=$registry/public/files
    succeeds "push to public/files, signed in" push_files "$public:1"
    succeeds "pull of it without a login" signed_out oras pull --no-tty --output "$scratch/public" "$public:1"
    refused "push to it without a login" "$denied" signed_out push_files "$public:2"
    succeeds "logout" oras logout "$registry"
    succeeds "pull of public/files after logout" pulls "$public:1"
    refused "pull of team/files after logout" "$denied" oras manifest fetch "$files:1"
    shown oras anonymous
}

# ----------------------------------------------------------------

client oras "v$(oras version | awk '$1 == "Version:" { print $2 }')"
private_home
mkdir -p "$work"
printf "oras's words\n" >"$work/words.txt"
head -c 300000 /dev/urandom >"$work/more.bin"
head -c 1000 /dev/urandom >"$scratch/blob"
make_layout "$layout" "oras's words"
start_berth
trust_is_needed
login_is_needed
pushes_and_pulls
blobs
an_index_stays_whole
lists
attaches
copies_between_repositories
copies_without_right_on_the_source
deletes
anonymous_pulls_beside
finish_matrix

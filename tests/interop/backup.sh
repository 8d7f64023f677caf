#!/usr/bin/env bash
# The verbs that carry content out and back: list, export, backup, restore, typed as an operator types them.
# skopeo reads what export writes.
# shellcheck source=tests/interop/containers.sh
. "$(dirname "$0")/containers.sh"

prepare() {
    need skopeo skopeo
    need curl curl
    need jq jq
    need setpriv util-linux
    need_binaries
    make_containers_place
}

enter_sandbox prepare

app=docker://$registry/team/app
creds=andrew:$andrew_password

verb() { "$bin/registry-server" --config "$data/registry.toml" "$@"; }

# Nobody but root may read the backup, and the server is somebody else: as under systemd.
serve_as_nobody() {
    chmod 0755 "$scratch"
    chown -R nobody "$data" "$certs"
    start auth-server setpriv --reuid nobody --clear-groups "$bin/auth-server" --config "$data/auth.toml"
    start_registry
    wait_for 30 "auth-server to be healthy" "$bin/auth-server" --config "$data/auth.toml" health
}

start_registry() {
    start registry-server setpriv --reuid nobody --clear-groups "$bin/registry-server" --config "$data/registry.toml"
    wait_for 30 "registry-server to be healthy" verb health
}

# The server could not write what belongs to root.
all_is_nobodys() {
    local found
    found=$(find "$data" ! -user nobody ! -type s)
    [[ -z $found ]] || fail "not the server's: $found"
    ok "everything in the data directory belongs to the server's user"
}

lists() {
    succeeds "list" verb list
    [[ $output == *"team/app"* && $output == *"total (2)"* ]] || fail "list: $output"
    succeeds "list of a repository" verb list team/app
    [[ $output == *"$(layout_digest "$scratch/image" one)"* ]] || fail "list: $output"
    rows() { [[ $(verb list --json | jq --raw-output .repository | xargs) == "team/app team/only" ]]; }
    succeeds "list --json is a line per repository" rows
    refused "list of a repository that is not there" 'no such repository' verb list team/none
}

exports() {
    local out=$scratch/out
    succeeds "export of a tag" verb export team/app:1 "$out"
    inspected() { [[ $(skopeo inspect "oci:$out:1" | jq --raw-output .Digest) == "$(layout_digest "$scratch/image" one)" ]]; }
    succeeds "skopeo inspects the layout" inspected
    succeeds "export of the whole repository into the same layout" verb export team/app "$out"
    succeeds "skopeo copies it back into another repository" \
        skopeo copy --all --dest-creds "$creds" "oci:$out:many" "docker://$registry/team/back:many"
    same() {
        [[ $(skopeo inspect --raw --creds "$creds" "docker://$registry/team/back:many" | sha256sum) == \
            $(skopeo inspect --raw --creds "$creds" "$app:many" | sha256sum) ]]
    }
    succeeds "and it is the same index" same
    skopeo delete --creds "$creds" "docker://$registry/team/back:many"
    mkdir "$scratch/mine"
    touch "$scratch/mine/letter"
    refused "export into a directory of something else" 'neither empty nor an OCI image layout' \
        verb export team/app:1 "$scratch/mine"
    refused "export of a tag that is not there" 'team/app has no tag none' verb export team/app:none "$scratch/none"
    refused "export of a repository that is not there" 'no such repository' verb export team/none "$scratch/none"
    refused "export of what is no name" 'no repository name' verb export "$registry/Team" "$scratch/none"
}

backs_up() {
    refused "backup into a directory of something else" 'neither empty nor a backup' verb backup "$scratch/mine"
    succeeds "backup beside the running server" verb backup "$scratch/backup"
    all_is_nobodys
    succeeds "push of another image" skopeo copy --dest-creds "$creds" "oci:$scratch/other:one" "$app:other"
    succeeds "a second backup adds it" verb --json backup "$scratch/backup"
    [[ $(tail -n 1 <<<"$output" | jq .added) == 2 ]] || fail "backup: $output"
}

restores() {
    refused "restore beside a running server" 'stop that one first' verb restore "$scratch/backup"
    stop registry-server
    refused "restore over a registry" 'there already' verb restore "$scratch/backup"
    rm -rf "$data/registry"
    refused "restore of what is no backup" 'is no backup' verb restore "$scratch/mine"
    mkdir "$scratch/victim"
    install --directory --owner nobody "$data/registry"
    ln --symbolic "$scratch/victim" "$data/registry/objects"
    refused "restore as root through a link that somebody else made" 'symbolic link' verb restore "$scratch/backup"
    [[ -z $(ls -A "$scratch/victim") ]] || fail "root wrote through the link"
    rm -rf "$data/registry"
    succeeds "restore" verb restore "$scratch/backup"
    all_is_nobodys
    start_registry
    local tag
    for tag in 1 many other; do
        succeeds "copy of $tag out of the restored registry" \
            skopeo copy --all --src-creds "$creds" "$app:$tag" "oci:$scratch/restored:$tag"
    done
    [[ $(layout_digest "$scratch/restored" many) == "$(layout_digest "$scratch/image" many)" ]] ||
        fail "another index came back"
    ok "and it is what was pushed"
    succeeds "verify finds nothing damaged" verb verify
    succeeds "push into the restored registry" skopeo copy --dest-creds "$creds" "oci:$scratch/image:one" "$app:2"
    # The damage must not reach the server's object, to which the backup's is a hard link.
    local object
    object=$(find "$scratch/backup/objects" -type f -print -quit)
    rm "$object"
    stop registry-server
    rm -rf "$data/registry"
    refused "restore names what is damaged" 'damaged: sha256' verb restore "$scratch/backup"
    start_registry
}

# ----------------------------------------------------------------

furnish_containers
make_layout "$scratch/image" "words to keep"
make_layout "$scratch/other" "other words to keep"
succeeds "authctl init" init_berth
serve_as_nobody
trust_containers
succeeds "copy of an image" skopeo copy --dest-creds "$creds" "oci:$scratch/image:one" "$app:1"
succeeds "copy of an index" skopeo copy --all --dest-creds "$creds" "oci:$scratch/image:many" "$app:many"
succeeds "copy into another repository" \
    skopeo copy --dest-creds "$creds" "oci:$scratch/image:one" "docker://$registry/team/only:1"
lists
exports
backs_up
restores

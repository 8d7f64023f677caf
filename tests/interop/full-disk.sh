#!/usr/bin/env bash
# The data lies on a small file system of its own, which fills up during pushes: pushes are told so, everything else
# goes on, and when there is room again pushes go on too, without a restart.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

disk_mib=192
free_mib_min=64
blob_mib=24

prepare() {
    need curl curl
    need jq jq
    need mkfs.ext4 e2fsprogs
    need_binaries
}

enter_sandbox prepare

port=$(free_port)
registry=https://$host:$port
disk=$scratch/disk
data=$disk/data
certs=$scratch/certs
password='a password'
headers=$scratch/headers
answer=$scratch/answer

mount_disk() {
    truncate --size "${disk_mib}M" "$scratch/disk.img"
    mkfs.ext4 -q -m 0 "$scratch/disk.img"
    mkdir -p "$disk"
    mount -o loop "$scratch/disk.img" "$disk"
}

init() {
    BERTH_DATA=$data BERTH_CERTS=$certs BERTH_HOST=$host BERTH_PORT=$port BERTH_PASSWORD=$password \
        "$bin/authctl" init
    sed --in-place '/^free_bytes_min/d' "$data/registry.toml"
    printf '[limits]\nfree_bytes_min = %s\n[collection]\ngrace_secs = 0\norphan_secs = 0\n' \
        $((free_mib_min * 1024 * 1024)) >>"$data/registry.toml"
}

curl_plain() { curl --silent --show-error --cacert "$certs/ca.pem" "$@"; }

token() {
    curl_plain --fail --user "andrew:$password" \
        "$registry/token?service=berth&scope=repository:full/disk:pull,push,delete" | jq --raw-output .token
}

# ask CURL-ARGUMENTS...: prints the status; headers and body lie in $headers and $answer.
ask() {
    curl_plain --header "Authorization: Bearer $bearer" --dump-header "$headers" --output "$answer" \
        --write-out '%{http_code}' "$@"
}

location() { tr --delete '\r' <"$headers" | sed --quiet 's/^[Ll]ocation: //p'; }

# push_blob FILE: prints the last status.
push_blob() {
    local status digest
    digest=sha256:$(sha256sum <"$1" | cut --delimiter ' ' --fields 1)
    status=$(ask --request POST "$registry/v2/full/disk/blobs/uploads/")
    if [[ $status == 202 ]]; then
        status=$(ask --request PUT --upload-file "$1" "$registry$(location)?digest=$digest")
    fi
    printf '%s' "$status"
}

# push_image TAG BLOB-FILE: a manifest that names one blob.
push_image() {
    local descriptor
    descriptor=$(printf '"digest":"sha256:%s","size":%s' "$(sha256sum <"$2" | cut --delimiter ' ' --fields 1)" \
        "$(stat --format %s "$2")")
    printf '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"a/b",%s},"layers":[]}' \
        application/vnd.oci.image.manifest.v1+json "$descriptor" >"$scratch/manifest"
    ask --request PUT --header 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
        --data-binary "@$scratch/manifest" "$registry/v2/full/disk/manifests/$1"
}

fill_until_refused() {
    local number status
    for number in $(seq 1 $((disk_mib / blob_mib + 2))); do
        head --bytes $((blob_mib * 1024 * 1024)) /dev/urandom >"$scratch/blob$number"
        status=$(push_blob "$scratch/blob$number")
        if [[ $status != 201 ]]; then
            refused_at=$number
            return
        fi
        status=$(push_image "v$number" "$scratch/blob$number")
        [[ $status == 201 ]] || fail "a manifest for a blob that is there got $status: $(cat "$answer")"
    done
    fail "$((number * blob_mib)) MiB went onto a disk of $disk_mib MiB"
}

pulls() {
    local got
    got=$(curl_plain --fail --header "Authorization: Bearer $bearer" \
        "$registry/v2/full/disk/blobs/sha256:$(sha256sum <"$1" | cut --delimiter ' ' --fields 1)" | sha256sum)
    [[ ${got%% *} == "$(sha256sum <"$1" | cut --delimiter ' ' --fields 1)" ]]
}

collect() { "$bin/registry-server" --config "$data/registry.toml" gc; }

free_mib() { df --output=avail --block-size=1M "$disk" | tail --lines 1 | tr --delete ' '; }

# ----------------------------------------------------------------

mount_disk || skip "no loop device can be mounted here"
succeeds "authctl init on a disk of $disk_mib MiB" init
start auth-server "$bin/auth-server" --config "$data/auth.toml"
start registry-server "$bin/registry-server" --config "$data/registry.toml"
wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
bearer=$(token)

fill_until_refused
status=$(push_blob "$scratch/blob$refused_at")
[[ $status == 507 ]] || fail "on a full disk a push gets $status: $(cat "$answer")"
ok "with $(free_mib) MiB free a push gets 507: $(jq --raw-output '.errors[0].message' "$answer")"
(($(free_mib) > free_mib_min / 2)) || fail "only $(free_mib) MiB are free: the bound of $free_mib_min MiB was not kept"
ok "pushes stopped with $(free_mib) MiB free; the bound is $free_mib_min"

succeeds "pulls go on" pulls "$scratch/blob1"
succeeds "tokens are issued" token
succeeds "collection goes on" collect

# Now by somebody else, to the last byte: what Berth writes for itself must not fail a pull or a token.
dd if=/dev/zero of="$disk/filler" bs=64K status=none 2>/dev/null || true
sync "$disk/filler"
note "$(free_mib) MiB are free"
succeeds "on a disk without a free byte pulls go on" pulls "$scratch/blob1"
succeeds "on a disk without a free byte tokens are issued" token
bearer=$(token)
status=$(ask --head "$registry/v2/full/disk/manifests/v1")
[[ $status == 200 ]] || fail "on a disk without a free byte HEAD of a manifest gets $status"
ok "on a disk without a free byte a tag resolves"
# Not the blob that is to be collected below: believed this second, it would stay for this second.
digest=sha256:$(sha256sum <"$scratch/blob2" | cut --delimiter ' ' --fields 1)
status=$(ask --head "$registry/v2/full/disk/blobs/$digest")
[[ $status == 200 ]] || fail "on a disk without a free byte HEAD of a blob, whose touch cannot be written, gets $status"
ok "on a disk without a free byte a touch that cannot be written fails nobody"
rm "$disk/filler"

status=$(ask --request DELETE "$registry/v2/full/disk/manifests/$(ask --head "$registry/v2/full/disk/manifests/v1" \
    >/dev/null; tr --delete '\r' <"$headers" | sed --quiet 's/^[Dd]ocker-[Cc]ontent-[Dd]igest: //p')")
[[ $status == 202 ]] || fail "deleting a manifest gets $status: $(cat "$answer")"
ok "deletes go on"
before=$(free_mib)
succeeds "collection gives the space back" collect
(($(free_mib) >= before + blob_mib - 2)) || fail "$before MiB were free before collection, $(free_mib) after"
ok "$before MiB were free before collection, $(free_mib) after"
head --bytes $((8 * 1024 * 1024)) /dev/urandom >"$scratch/again"
status=$(push_blob "$scratch/again")
[[ $status == 201 ]] || fail "after space was freed a push gets $status: $(cat "$answer")"
ok "pushes go on, without a restart"
umount_later() { umount --lazy "$disk"; }
umount_later

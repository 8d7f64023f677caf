#!/usr/bin/env bash
# What is large, slow or many and means well is served by the limits that a server is shipped with: an upload of 4.7 GB,
# and meanwhile 200 kept connections of one address and 200 pulls at 10 KB/s. It takes a minute and 5 GB of disk.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

# As large as a DVD: beyond what 32 bits count.
blob_bytes=4700000000
# That of as many zeros: head -c 4700000000 /dev/zero | sha256sum
digest=sha256:218bfde52da3664fd3cb75550c3942092ca279a888534dc4d0d70f183dbbc531
free_mib_min=6144

prepare() {
    need curl curl
    need jq jq
    need_binaries
    need_programs load
    local free_mib
    free_mib=$(df --output=avail --block-size=M "${TMPDIR:-/tmp}" | tail -n 1 | tr --delete ' M')
    ((free_mib >= free_mib_min)) || skip "needs $free_mib_min MiB in ${TMPDIR:-/tmp}, and $free_mib are free"
}

enter_sandbox prepare

# shellcheck source=tests/interop/stack.sh
. "$root/tests/interop/stack.sh"

uploads=https://$registry/v2/big/dvd/blobs/uploads/

request() { curl_berth andrew "$andrew_password" repository:big/dvd:pull,push --fail --show-error "$@"; }

# One streamed PATCH whose length nobody says beforehand, and a commit.
push_dvd() {
    local location
    location=$(request --request POST --dump-header - "$uploads" | tr --delete '\r' | sed --quiet 's/^[Ll]ocation: //p')
    head -c "$blob_bytes" /dev/zero |
        request --request PATCH --header 'Content-Type: application/octet-stream' --upload-file - --output /dev/null \
            "https://$registry$location"
    request --request PUT "https://$registry$location?digest=$digest"
}

# It is there whole: its size, and its last bytes.
dvd_is_there() {
    local blob=https://$registry/v2/big/dvd/blobs/$digest
    request --head "$blob" | tr --delete '\r' | grep --quiet --ignore-case "^content-length: $blob_bytes\$" &&
        request --range "$((blob_bytes - 10))-" "$blob" | cmp - <(head -c 10 /dev/zero)
}

# ----------------------------------------------------------------

start_berth
start upload push_dvd
# From an address that is not the loopback's, so that the share of a network counts.
"$programs/load" --bin "$bin" --data "$scratch" --listen "$host_address" --served honest-kubelets honest-pulls ||
    fail "those who mean well"
wait "${pid_of[upload]}" || fail "an upload of $blob_bytes bytes"
unset "pid_of[upload]"
succeeds "an upload of $blob_bytes bytes is there whole" dvd_is_there

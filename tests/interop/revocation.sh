#!/usr/bin/env bash
# Revocation in seconds: somebody pulls without a pause, and every way of taking something away ends that.
# The seconds until then are printed and never asserted; that it ends, and for nobody else, is.
# shellcheck source=tests/interop/stack.sh
. "$(dirname "$0")/stack.sh"

prepare() {
    need curl curl
    need jq jq
    need_binaries
}

enter_sandbox prepare

repository=team/app
manifest=
neighbour=

curl_quietly() { curl --silent --cacert "$certs/ca.pem" "$@"; }

# fetch_token USER PASSWORD: a token for pulling, as a client gets one.
fetch_token() {
    curl_quietly --fail --user "$1:$2" "https://$registry/token?service=berth&scope=repository:$repository:pull" |
        jq --raw-output .token
}

# pull TOKEN: the status of a pull.
pull() { curl_quietly --output /dev/null --write-out '%{http_code}\n' --header "Authorization: Bearer $1" "$manifest"; }

# pull_loop TOKEN FILE: pulls until it is refused or $scratch/over is there, with a line per pull.
pull_loop() {
    local status
    until [[ -e $scratch/over ]]; do
        status=$(pull "$1")
        printf '%s\n' "$status" >>"$2"
        [[ $status == 200 ]] || return 0
    done
}

# ends WHAT USER PASSWORD COMMAND...: a loop with a token of the user's runs, the command is typed, the loop ends.
ends() {
    local what=$1 user=$2 password=$3 begun token loop statuses
    shift 3
    token=$(fetch_token "$user" "$password")
    statuses=$scratch/statuses.$((++count))
    pull_loop "$token" "$statuses" &
    loop=$!
    wait_for 10 "the loop to pull" has_pulled "$statuses"
    begun=$EPOCHREALTIME
    "$@" >/dev/null 2>&1 || fail "$what: the command failed"
    wait_for 20 "$what to end the pulls" has_ended "$statuses"
    wait "$loop"
    [[ $(tail -n 1 "$statuses") == 401 ]] || fail "$what: the loop ended with $(tail -n 1 "$statuses")"
    # What ended stays so.
    [[ $(pull "$token") == 401 ]] || fail "$what: the token came back to life"
    has_ended "$neighbour" && fail "$what: it ended the pulls of somebody else as well"
    ok "$what: the running pulls ended after $(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $begun }") s, nobody else's did"
}

count=0
has_pulled() { [[ -s $1 ]]; }
has_ended() { grep --quiet --invert-match '^200$' "$1"; }

put_image() {
    make_layout "$scratch/layout" revocation
    local digest path
    curl_andrew() { curl_berth andrew "$andrew_password" "repository:$repository:pull,push" --fail "$@"; }
    for path in "$scratch"/layout/blobs/sha256/*; do
        digest=sha256:$(basename "$path")
        curl_andrew --request POST --data-binary "@$path" --header 'Content-Type: application/octet-stream' \
            "https://$registry/v2/$repository/blobs/uploads/?digest=$digest" >/dev/null
    done
    digest=$(layout_digest "$scratch/layout" one)
    curl_andrew --request PUT --data-binary "@$scratch/layout/blobs/sha256/${digest#sha256:}" \
        --header 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
        "https://$registry/v2/$repository/manifests/v1" >/dev/null
    manifest=https://$registry/v2/$repository/manifests/v1
}

change_password() { printf 'another one\n' | ctl user passwd "$1" --password-stdin; }

# edit_file USER: what an editor does with the htpasswd file, while the server runs.
edit_file() { sed --in-place "/^$1:/d" "$data/htpasswd"; }

every_way() {
    local user secret
    for user in changed removed edited revoked denied voided member; do
        add_user "$user" "password of $user" "$repository:pull"
    done
    ends "a new password" changed "password of changed" change_password changed
    ends "a removed user" removed "password of removed" ctl user remove removed
    ends "a line taken out of the htpasswd file" edited "password of edited" edit_file edited
    ends "a revoked grant" revoked "password of revoked" ctl revoke revoked "$repository:pull"
    ends "a deny" denied "password of denied" ctl deny denied "$repository:pull"
    ends "revoke-tokens" voided "password of voided" ctl revoke-tokens voided
    ctl revoke member "$repository:pull" >/dev/null
    ctl group add team member >/dev/null
    ctl grant group:team "$repository:pull" >/dev/null
    ends "leaving a group" member "password of member" ctl group remove team member
    ctl group add team member >/dev/null
    ends "what a group loses" member "password of member" ctl revoke group:team "$repository:pull"
    secret=$(ctl --json robot create cluster --grant "$repository:pull" | jq --raw-output .secret)
    ends "a deleted robot" robot.cluster "$secret" ctl robot revoke cluster
}

# ----------------------------------------------------------------

start_berth
put_image
neighbour=$scratch/neighbour
pull_loop "$(fetch_token reader "$reader_password")" "$neighbour" &
neighbours_loop=$!
wait_for 10 "the neighbour to pull" has_pulled "$neighbour"
every_way
touch "$scratch/over"
wait "$neighbours_loop"
has_ended "$neighbour" && fail "the neighbour was refused"
ok "the neighbour pulled $(wc -l <"$neighbour") times meanwhile, and was never refused"

#!/usr/bin/env bash
# What the servers do at SIGHUP, SIGUSR1 and SIGUSR2, and the verbs that work beside them, typed as an operator types them.
# shellcheck source=tests/interop/stack.sh
. "$(dirname "$0")/stack.sh"

prepare() {
    need curl curl
    need jq jq
    need_binaries
}

enter_sandbox prepare

verb() { "$bin/registry-server" --config "$data/registry.toml" "$@"; }

# to FILE COMMAND...
to() {
    local file=$1
    shift
    "$@" >"$file"
}

# true_reads COMMAND...: into a pipe that nobody reads; the exit status is that of the command.
true_reads() {
    "$@" | true
    return "${PIPESTATUS[0]}"
}

scope=repository:team/app:pull,push,delete
upload() {
    curl_berth andrew "$andrew_password" "$scope" --output "$scratch/answer" --write-out '%{http_code}' \
        --request POST "https://$registry/v2/team/app/blobs/uploads/"
}

# push_gets WHAT STATUS
push_gets() {
    local status
    status=$(upload)
    [[ $status == "$2" ]] || fail "$1: a push gets $status"
    ok "$1: a push gets $2"
}

signal_registry() { kill "-$1" "${pid_of[registry-server]}"; }
logged() { grep --quiet --fixed-strings -e "$2" "$scratch/logs/$1.log"; }
pushes_get() { [[ $(upload) == "$1" ]]; }

push_blob() {
    local digest
    digest=sha256:$(printf '%s' "$1" | sha256sum | cut --delimiter ' ' --fields 1)
    curl_berth andrew "$andrew_password" "$scope" --fail --output /dev/null --request POST --data-binary "$1" \
        "https://$registry/v2/team/app/blobs/uploads/?digest=$digest"
}

manifest() {
    local type=application/vnd.oci.image digest
    digest=sha256:$(printf 'a config' | sha256sum | cut --delimiter ' ' --fields 1)
    printf '{"schemaVersion": 2, "mediaType": "%s.manifest.v1+json", "config": %s, "layers": []}' $type \
        "{\"mediaType\": \"$type.config.v1+json\", \"digest\": \"$digest\", \"size\": 8}"
}

# push_image TAG: always the same image.
push_image() {
    push_blob 'a config'
    curl_berth andrew "$andrew_password" "$scope" --fail --output /dev/null --request PUT --data-binary "$(manifest)" \
        --header 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
        "https://$registry/v2/team/app/manifests/$1"
}

switches() {
    push_gets "at first" 202
    signal_registry USR1
    wait_for 10 "SIGUSR1 to be heard" pushes_get 405
    ok "SIGUSR1: pushes get 405: $(jq --raw-output '.errors[0].message' "$scratch/answer")"
    signal_registry USR2
    wait_for 10 "SIGUSR2 to be heard" pushes_get 202
    ok "SIGUSR2: pushes are taken again"
    succeeds "read-only on" verb read-only on
    push_gets "read-only on" 405
    refused "gc of a read-only registry" 'read-only' verb gc
    refused "delete from a read-only registry" 'read-only' verb delete team/app
    succeeds "gc --dry-run of a read-only registry" verb gc --dry-run
    succeeds "read-only off" verb read-only off
    push_gets "read-only off" 202
}

reloads() {
    cp "$data/registry.toml" "$scratch/registry.toml"
    sed --in-place '1i read_only = true' "$data/registry.toml"
    signal_registry HUP
    wait_for 10 "SIGHUP to be heard" pushes_get 405
    ok "SIGHUP: read_only = true takes effect"
    sed -e '1i no_such_key = 1' "$scratch/registry.toml" >"$data/registry.toml"
    signal_registry HUP
    wait_for 10 "a mistake to be named" logged registry-server 'no_such_key'
    push_gets "SIGHUP with a mistake in the file changes nothing" 405
    sed -e 's/^service = .*//' -e '1i service = "another"' "$scratch/registry.toml" >"$data/registry.toml"
    signal_registry HUP
    wait_for 10 "what needs a restart to be named" logged registry-server 'service changed: it takes effect at the next start'
    ok "SIGHUP: what needs a restart is named"
    cp "$scratch/registry.toml" "$data/registry.toml"
    signal_registry HUP
    wait_for 10 "the old settings" pushes_get 202
    ok "SIGHUP: and back"
    sed --in-place 's/^log = .*/log = "debug"/; s/^token_life_secs = .*//' "$data/auth.toml"
    sed --in-place '1i token_life_secs = 600' "$data/auth.toml"
    kill -HUP "${pid_of[auth-server]}"
    wait_for 10 "auth-server to read its settings" logged auth-server 'token_life_secs changed: it takes effect'
    ok "SIGHUP: auth-server names what needs a restart"
}

collects() {
    succeeds "push of a blob that nothing names" push_blob "stray words"
    local name=sha256:$(printf 'stray words' | sha256sum | cut --delimiter ' ' --fields 1)
    printf '\n[collection]\ngrace_secs = 0\n' >>"$data/registry.toml"
    signal_registry HUP
    is_listed() { verb gc --dry-run | grep --quiet "blob $name of team/app: no manifest here names it, 11 B"; }
    wait_for 10 "the blob to be listed" is_listed
    ok "gc --dry-run lists it, with the reason and the bytes"
    succeeds "gc" verb gc
    [[ $output == *"removed 0 manifests, 0 shared blobs, 1 blob, "* ]] || fail "gc: $output"
    succeeds "gc --json" verb --json gc
    [[ $(tail --lines 1 <<<"$output" | jq .blobs) == 0 ]] || fail "gc --json: $output"
    refused "delete of what is not there" 'no such repository' verb delete team/none
    refused "delete of no name" 'no repository name' verb delete Team/App
    succeeds "verify" verb verify
}

deletes() {
    succeeds "push of an image" push_image one
    succeeds "push of another tag" push_image two
    says "delete of a tag" 0 '1 tag; team/app@sha256:[0-9a-f]{64} stays: delete it by that name, or set untagged_secs$' \
        verb delete team/app:one
    says "delete of a manifest" 0 'frees what it alone named, 0 s \(grace_secs\) after its last push$' \
        verb delete "team/app@sha256:$(manifest | sha256sum | cut --delimiter ' ' --fields 1)"
    succeeds "push of it again" push_image three
    printf 'untagged_secs = 60\n' >>"$data/registry.toml"
    says "delete of a tag with untagged_secs" 0 'if nothing else names it, goes after 60 s \(untagged_secs\)$' \
        verb delete team/app:three
    says "delete of a repository" 0 'the next garbage collection gives the space back$' verb delete team/app
}

output_that_cannot_be_written() {
    local words
    for words in list gc verify 'gc --json' 'completion bash'; do
        # shellcheck disable=SC2086  # the words of a verb
        says "$words onto a full disk" 1 '^registry-server: .* could not be written: No space left' to /dev/full verb $words
        # shellcheck disable=SC2086
        says "$words for nobody" 0 '^$' true_reads verb $words
    done
}

# Each failure is a line of JSON as well, and one alone.
failures_for_programs() {
    local words
    for words in 'delete team/none' 'list team/none' "import $scratch/nowhere" "restore $scratch/nowhere"; do
        # shellcheck disable=SC2086
        fails_in_json $words
    done
}

# fails_in_json VERB...
fails_in_json() {
    local told
    told=$(verb --json "$@" 2>"$scratch/told") && fail "$*: it was let through"
    jq --exit-status --slurp 'length == 1 and .[0].event == "failed" and (.[0].message | length) > 0' <<<"$told" \
        >/dev/null || fail "--json $*: $told"
    [[ $(<"$scratch/told") == "registry-server: "* ]] || fail "$*: $(<"$scratch/told")"
    ok "--json $*: $told"
}

# Which configuration is taken when none is named; in $scratch lies data/registry.toml.
looks_for_its_configuration() {
    local program=$bin/registry-server installed='reading /etc/berth/registry.toml: No such file'
    says "data/registry.toml" 0 '^REPOSITORY' env --chdir "$scratch" "$program" list
    says "\$BERTH_DATA/registry.toml" 0 '^REPOSITORY' env --chdir / BERTH_DATA="$data" "$program" list
    says "BERTH_DATA of another server" 1 "$installed" \
        env --chdir "$scratch" BERTH_DATA="$data/auth" "$program" list
    says "neither" 1 "$installed" env --chdir / "$program" list
    install -D "$data/registry.toml" /etc/berth/registry.toml
    sed --in-place "s|^data = .*||; 1i data = \"$data/registry\"" /etc/berth/registry.toml
    says "/etc/berth/registry.toml" 0 '^REPOSITORY' env --chdir / BERTH_DATA="$data/auth" "$program" list
    program=$bin/auth-server
    says "data/auth.toml" 0 '^$' env --chdir "$scratch" "$program" health
    says "\$BERTH_DATA/auth.toml" 0 '^$' env --chdir / BERTH_DATA="$data" "$program" health
    says "BERTH_DATA without settings" 1 "reading $scratch/auth.toml: No such file" \
        env --chdir "$scratch" BERTH_DATA="$scratch" "$program" health
    says "no settings" 1 'reading /etc/berth/auth.toml: No such file' env --chdir / "$program" health
}

# pushes: indexes of thousands under more and more tags, 32 at once. Prints the statuses.
pushes() {
    local n tag type=application/vnd.oci.image digest
    digest=sha256:$(manifest | sha256sum | cut --delimiter ' ' --fields 1)
    for ((n = 0; n < 32; n++)); do
        jq --null-input --compact-output --arg type $type --arg digest "$digest" --arg n "$n" \
            '{schemaVersion: 2, mediaType: "\($type).index.v1+json", annotations: {n: $n}, manifests: [range(3000) |
              {mediaType: "\($type).manifest.v1+json", digest: $digest, size: 7, annotations: {n: tostring}}]}' >"$scratch/index-$n"
    done
    for ((tag = 0; tag < 2000; tag++)); do
        printf 'url = "https://%s/v2/team/app/manifests/many-%s"\nupload-file = "%s"\noutput = /dev/null\n' \
            "$registry" "$tag" "$scratch/index-$((tag % 32))"
    done >"$scratch/pushes"
    curl_berth andrew "$andrew_password" "$scope" --header "Content-Type: $type.index.v1+json" --no-progress-meter \
        --parallel --parallel-immediate --parallel-max 32 --write-out '%{http_code}\n' --config "$scratch/pushes"
}

# As systemd and docker stop it, which kill what has not ended by then.
stops_with_work() {
    local pid=${pid_of[registry-server]} pushed='PUT /v2/team/app/manifests/many-.* status=201'
    succeeds "push of an image" push_image one
    start pushes pushes
    wait_for 60 "pushes to be under way" log_has "$pushed"
    log_mark
    kill -TERM "$pid"
    timeout 14 tail --pid "$pid" --follow /dev/null || fail "SIGTERM with pushes under way: it did not end in 14 s"
    stop registry-server || fail "SIGTERM with pushes under way: it ended with $?"
    log_since "$pushed" || fail "no push was under way, so that nothing is shown"
    ok "SIGTERM with pushes under way: it ends in time, and $(count_since "$pushed") of them come to their end"
    stop pushes || true
}

programs_introduce_themselves() {
    local program version
    version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    for program in auth-server authctl registry-server; do
        succeeds "$program --version" "$bin/$program" --version
        [[ $output == "$program $version" ]] || fail "$program --version: $output"
    done
    for program in authctl registry-server; do
        says "completion of $program for nobody" 0 '^$' true_reads "$bin/$program" completion bash
        "$bin/$program" completion bash >"$scratch/completion"
        succeeds "completion of $program is a script" bash -n "$scratch/completion"
        grep --quiet "complete .*-F .* $program\$" "$scratch/completion" || fail "it completes nothing: $program"
    done
}

# ----------------------------------------------------------------

programs_introduce_themselves
start_berth
switches
reloads
collects
deletes
output_that_cannot_be_written
failures_for_programs
looks_for_its_configuration
stops_with_work
succeeds "verify without a server" verb verify
succeeds "gc without a server" verb gc
refused "read-only without a server" 'no server runs' verb read-only on
fails_in_json read-only on
fails_in_json health
rm "$data/registry.toml"
fails_in_json list

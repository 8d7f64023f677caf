#!/usr/bin/env bash
# The registry's objects at an S3 server, VersityGW: what the store has to do, step by step, black-box tests over sockets,
# and the way there that breaks; with the rows in SQLite, and some of it with the rows in PostgreSQL. The official
# conformance suite runs on PostgreSQL and S3 together. BERTH_FULL=1 runs all black-box tests on both, but for what is
# about a disk.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/interop/suite.sh
. "$root/tests/interop/suite.sh"
# shellcheck source=tests/interop/go-clients.sh
. "$root/tests/interop/go-clients.sh"
# shellcheck source=tests/interop/engines.sh
. "$root/tests/interop/engines.sh"

prepare() {
    need_root
    need curl curl
    need jq jq
    need setpriv util-linux
    need_binaries
    need_postgres
    need_suite
    go_tool "$versitygw"
    command -v cargo >/dev/null || skip "cargo is missing, which builds the tests"
    build >/dev/null || fail "the tests of the servers do not build"
}

enter_sandbox prepare

# A disk has room that ends, files that grow and may stay open, and shows them to whoever looks; deleted objects go at
# once; a backup goes back to where it was. A bucket has none of that, and what stands for it is tried in bucket.rs.
about_a_disk=(backup:: inventory:: a_full_disk bytes_that_are_on_their_way_count_too uploads_that_trickle_keep_nobody
    uploads_whose_clients_think a_client_that_leaves_in_its_only_request a_second_patch_stops_a_half_open_first
    a_session_can_be_cancelled_under a_stream_that_is_reset an_http2_stream_that_is_reset an_object_that_nothing_owns
    a_cancelled_session_is_gone without_grace_nothing_acknowledged what_is_stored_and_who_came what_was_put_right_is_served
    hundreds_of_pulls_that_nobody_takes an_upload_under_way_records_nothing)
# What comes to the store, and goes.
modules=(manifests:: push:: pull:: mounts:: collection:: races:: broken_push:: limits:: verification:: export::)
# Where rows and objects meet.
modules_of_both=(push:: mounts:: collection:: races::)

store() { "$(tests_of registry-server)" --ignored at_s3; }

breaks() { "$(tests_of it)" --ignored bucket::; }

moves() { "$(tests_of it)" --ignored moves_into_a_bucket; }

black_box() {
    local skipped=() name
    for name in "${about_a_disk[@]}"; do skipped+=(--skip "$name"); done
    [[ -z ${BERTH_FULL:-} ]] || set --
    "$(tests_of it)" "${skipped[@]}" "$@"
}

# Both servers of Berth, with rows in PostgreSQL and objects in a bucket.
keep_elsewhere() {
    printf '%s\n' "$s3_key" >"$data/s3.name"
    printf '%s\n' "$s3_secret" >"$data/s3.secret"
    cat >>"$data/registry.toml" <<TOML

[database]
url = "postgres://postgres@localhost/suite?host=$postgres&port=$postgres_port"

[store]
url = "s3://$s3_bucket/suite"
endpoint = "http://127.0.0.1:$s3_port"
access_key_file = "s3.name"
secret_key_file = "s3.secret"
TOML
}

suite_on_both() {
    # shellcheck source=tests/interop/stack.sh
    . "$root/tests/interop/stack.sh"
    psql_plain --command 'CREATE DATABASE suite'
    after_init=keep_elsewhere
    start_berth
    run_suite 1.1 andrew "$andrew_password" OCI_VERSION=1.1
}

start_s3
make_postgres
start_postgres -c fsync=on
export BERTH_TEST_S3="http://$s3_key:$s3_secret@127.0.0.1:$s3_port/$s3_bucket" BERTH_TEST_S3_FOLDER=$s3_folder
succeeds "what a store has to do is done at VersityGW" store
succeeds "black-box tests pass with rows in SQLite and objects at VersityGW" black_box "${modules[@]}"
succeeds "a registry moves from a disk into a bucket and back" moves
succeeds "nothing is half done wherever the way to VersityGW breaks, and what cannot be right is refused" breaks
psql_plain --command 'CREATE DATABASE tests'
export BERTH_TEST_POSTGRES="postgres://postgres@localhost/tests?host=$postgres&port=$postgres_port"
succeeds "black-box tests pass with rows in PostgreSQL and objects at VersityGW" black_box "${modules_of_both[@]}"
suite_on_both

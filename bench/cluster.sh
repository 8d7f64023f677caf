#!/usr/bin/env bash
# Berth with its rows in PostgreSQL and its objects at an S3 server, beside distribution with its files at the same one:
# both plain, in turns in one run. DISTRIBUTION names the peer's program. Words that follow are the bench's own.
# It runs in namespaces of its own, like the scripts of tests/interop that start these engines.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/../tests/interop/lib.sh"
# shellcheck source=tests/interop/go-clients.sh
. "$root/tests/interop/go-clients.sh"
# shellcheck source=tests/interop/engines.sh
. "$root/tests/interop/engines.sh"

prepare() {
    need_root
    need wrk wrk
    need htpasswd apache2-utils
    need setpriv util-linux
    need_binaries
    need_postgres
    go_tool "$versitygw"
}

enter_sandbox prepare

start_s3
make_postgres
start_postgres -c fsync=on >&2
psql_plain --command 'CREATE DATABASE bench'
export BENCH_POSTGRES="postgres://postgres@localhost/bench?host=$postgres&port=$postgres_port"
export BENCH_S3="http://$s3_key:$s3_secret@127.0.0.1:$s3_port/$s3_bucket"
printf '\nAt %s, with PostgreSQL %s, on the same machine:\n\n' "$(versitygw --version | head -n 1)" \
    "$(psql_plain --command 'SHOW server_version')"
# shellcheck disable=SC2086 # several words
"${CARGO_TARGET_DIR:-$root/target}/release/bench" --bin "$bin" --peers berth-s3,distribution-s3 --quiet-only \
    --rest-secs 5 ${BENCH_WORDS:-} manifest blob-10k blob-1m pull-http1 push-http1 small-blobs tags

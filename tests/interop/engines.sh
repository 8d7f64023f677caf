# shellcheck shell=bash
# Sourced by the scripts that keep rows in PostgreSQL or objects at an S3 server: these start a server of each, and find
# the programs of the tests that are told to use them.

# Its programs lie beside each other, by version, where no path leads.
need_postgres() {
    postgres_programs >/dev/null && return
    if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
        skip "PostgreSQL is missing: apt-get install postgresql"
    fi
    note "installing postgresql, because PostgreSQL is missing"
    # Else the package starts a server of its own.
    [[ -e /etc/postgresql-common/createcluster.conf ]] ||
        install -D -m 0644 /dev/stdin /etc/postgresql-common/createcluster.conf <<<'create_main_cluster = false'
    apt_install postgresql || skip "PostgreSQL is missing, and postgresql could not be installed"
    postgres_programs >/dev/null || skip "PostgreSQL is missing, and postgresql did not bring it"
}

postgres_programs() {
    local found=(/usr/lib/postgresql/*/bin/initdb)
    [[ -x ${found[-1]} ]] || return 1
    printf '%s\n' "${found[@]%/initdb}" | sort --version-sort | tail -n 1
}

# Prints where the programs of the crates' own tests lie, each behind its name. Of the whole workspace, as `make test`
# has built them: of one package alone, libraries would be built once more, with other features.
build() {
    (cd "$root" && cargo test --locked --quiet --workspace --lib --test it --no-run --message-format json) |
        jq --raw-output 'select(.executable != null and .profile.test) | "\(.target.name) \(.executable)"'
}

# The program of a package's tests, or of the black-box tests.
tests_of() { build | awk -v name="${1/-/_}" '$1 == name { print $2 }'; }

# ---------------------------------------------------------------- PostgreSQL

# shellcheck disable=SC2154 # lib.sh sets scratch
postgres=$scratch/postgres
# It does not run as root, and must get at its directory.
as_postgres=(setpriv --reuid postgres --regid postgres --init-groups env --chdir "$postgres")

make_postgres() {
    bin_of_postgres=$(postgres_programs)
    postgres_port=$(free_port)
    chmod 0711 "$scratch"
    install -d -o postgres -g postgres -m 0700 "$postgres"
    "${as_postgres[@]}" "$bin_of_postgres/initdb" --pgdata data --encoding UTF8 --locale C --auth trust --no-sync \
        >"$scratch/logs/initdb.log" 2>&1 || fail "initdb"
}

# start_postgres ARGUMENTS...: on $postgres_port, and on a socket in its directory.
start_postgres() {
    start postgres "${as_postgres[@]}" "$bin_of_postgres/postgres" -D data -k "$postgres" -c listen_addresses=127.0.0.1 \
        -c port="$postgres_port" -c max_connections=300 "$@"
    wait_for 60 "PostgreSQL" psql_plain --command 'SELECT 1'
    note "$(psql_plain --command 'SELECT version()')"
}

psql_plain() {
    "${as_postgres[@]}" "$bin_of_postgres/psql" --no-psqlrc --quiet --no-align --tuples-only --host "$postgres" --port "$postgres_port" \
        --dbname "${server:-postgres}" "$@"
}

# ---------------------------------------------------------------- S3

versitygw=github.com/versity/versitygw/cmd/versitygw@v1.8.0
s3_bucket=berth
s3_key=berthtest
s3_secret=berthtestsecret

# Its objects are files in a folder.
start_s3() {
    s3_port=$(free_port)
    s3_folder=$scratch/s3/$s3_bucket
    mkdir -p "$s3_folder" "$scratch/names-of-s3"
    start versitygw versitygw --port "127.0.0.1:$s3_port" --access "$s3_key" --secret "$s3_secret" --health /health --quiet \
        posix --sidecar "$scratch/names-of-s3" "$scratch/s3"
    wait_for 30 "VersityGW" curl --silent --fail --output /dev/null "http://127.0.0.1:$s3_port/health"
    note "$(versitygw --version | head -n 1)"
}

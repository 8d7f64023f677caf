#!/usr/bin/env bash
# What registry-server says to its database is understood by PostgreSQL too: every statement that it makes is prepared
# there, over the tables that migrations/postgres makes, which are those of SQLite under the same names.
# The statements come from the server's own test of them, which runs every operation and writes down what was said.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

server=registry-server

prepare() {
    need jq jq
    need setpriv util-linux
    need_postgres
    command -v cargo >/dev/null || skip "cargo is missing, which builds the test that writes the statements down"
    build >/dev/null || fail "the tests of $server do not build"
}

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

# Prints where the program of the server's own tests lies. Of the whole workspace, as `make test` has built them:
# of one package alone, libraries would be built once more, with other features.
build() {
    (cd "$root" && cargo test --locked --quiet --workspace --lib --no-run --message-format json) |
        jq --raw-output --arg name "${server/-/_}" \
            'select(.executable != null and .profile.test and .target.name == $name).executable'
}

enter_sandbox prepare

postgres=$scratch/postgres
said=$scratch/said
# It does not run as root, and must get at its directory.
as_postgres=(setpriv --reuid postgres --regid postgres --init-groups env --chdir "$postgres")
bin_of_postgres=$(postgres_programs)

start_postgres() {
    chmod 0711 "$scratch"
    install -d -o postgres -g postgres -m 0700 "$postgres"
    "${as_postgres[@]}" "$bin_of_postgres/initdb" --pgdata data --encoding UTF8 --locale C --auth trust --no-sync \
        >"$scratch/logs/initdb.log" 2>&1 || fail "initdb"
    start postgres "${as_postgres[@]}" "$bin_of_postgres/postgres" -D data -k "$postgres" -c listen_addresses= \
        -c fsync=off
    wait_for 60 "PostgreSQL" psql_plain --command 'SELECT 1'
    note "$(psql_plain --command 'SELECT version()')"
}

psql_plain() {
    "${as_postgres[@]}" "$bin_of_postgres/psql" --no-psqlrc --quiet --no-align --tuples-only --host "$postgres" \
        --dbname postgres "$@"
}

write_down() {
    mkdir -p "$said"
    BERTH_SQL_DIR=$said "$(build)" --exact statements::statements_cost_by_what_they_are_about
    [[ -s $said/statements && -s $said/schema ]]
}

migrations=$root/$server/migrations

same_migrations() { diff <(ls "$migrations/sqlite") <(ls "$migrations/postgres"); }

migrate() {
    local file
    for file in "$migrations"/postgres/*.sql; do
        psql_plain --set ON_ERROR_STOP=1 --single-transaction --file - <"$file" || return
    done
}

# A line for each column, key, index and reference, in the words in which the test says what SQLite has.
# A text whose order is not that of bytes is none of these.
schema_of_postgres() {
    psql_plain --file - <<'SQL'
CREATE FUNCTION pg_temp.names(owner oid, numbers smallint[]) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(a.attname, ', ' ORDER BY n.at)
    FROM unnest(numbers) WITH ORDINALITY n (number, at)
    JOIN pg_attribute a ON a.attrelid = owner AND a.attnum = n.number
$$;
SELECT 'column ' || table_name || '.' || column_name || ' ' || CASE
    WHEN data_type = 'bigint' THEN 'INTEGER'
    WHEN data_type = 'bytea' THEN 'BLOB'
    WHEN data_type = 'text' AND collation_name = 'C' THEN 'TEXT'
    ELSE data_type || ' in the order of ' || COALESCE(collation_name, 'the database') END
    || CASE is_nullable WHEN 'NO' THEN ' required' ELSE '' END
FROM information_schema.columns WHERE table_schema = 'public';
SELECT CASE contype WHEN 'p' THEN 'key' WHEN 'u' THEN 'unique' ELSE 'reference' END
    || ' ' || conrelid::regclass || ' (' || pg_temp.names(conrelid, conkey) || ')'
    || CASE WHEN contype = 'f' THEN ' to ' || confrelid::regclass
           || ' (' || pg_temp.names(confrelid, confkey) || ') '
           || CASE confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'a' THEN 'NO ACTION' ELSE confdeltype::text END
       ELSE '' END
FROM pg_constraint WHERE connamespace = 'public'::regnamespace;
SELECT 'index ' || indexrelid::regclass || ' on ' || indrelid::regclass
    || ' (' || pg_temp.names(indrelid, indkey::smallint[]) || ')'
    || COALESCE(' where ' || trim(BOTH '()' FROM pg_get_expr(indpred, indrelid)), '')
FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
WHERE c.relnamespace = 'public'::regnamespace
AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.indexrelid AND k.contype IN ('p', 'u'));
SQL
}

same_schema() { diff <(sort "$said/schema") <(schema_of_postgres | sort); }

# Reads what psql says, and prints the statement behind each error.
with_statements() {
    local line error
    while IFS= read -r line; do
        error=${line#psql:<stdin>:}
        [[ $error != "$line" && $error == *ERROR:* ]] || continue
        printf '%s\n    %s\n' "${error#*: }" "$(sed --quiet "${error%%:*}p" "$said/statements")"
    done
}

# One to a line, so that the number of the line is that of the statement.
preparation() { awk '{ printf "PREPARE s%d AS %s;\n", NR, $0 }' "$said/statements"; }

prepare_all() {
    local errors
    errors=$(preparation | psql_plain --file - 2>&1 | with_statements)
    printf '%s' "$errors"
    [[ -z $errors ]]
}

# What PostgreSQL takes a place for is what the server puts there: it sends numbers of 64 bits and no others.
place_types() {
    local others
    others=$( (
        preparation
        printf '%s\n' "SELECT statement, parameter_types FROM pg_prepared_statements" \
            "WHERE NOT parameter_types::text[] <@ ARRAY['bigint', 'text', 'bytea', 'boolean'];"
    ) | psql_plain --file - 2>&1)
    printf '%s' "$others"
    [[ -z $others ]]
}

# The server reads numbers of 64 bits, text, bytes and truth, and takes a number of another width for an error.
answer_types() {
    # What is not read at all may be of any type.
    awk '$0 != "SELECT 1" { print $0 " \\gdesc" }' "$said/statements" | psql_plain --file - 2>&1 |
        grep --extended-regexp --invert-match '\|(bigint|text|bytea|boolean)$|^The command has no result' | tee "$scratch/types"
    [[ ! -s $scratch/types ]]
}

start_postgres
succeeds "$server: SQLite and PostgreSQL have the same migrations" same_migrations
succeeds "$server: its own test writes down what it says" write_down
succeeds "$server: PostgreSQL takes the migrations" migrate
succeeds "$server: they make the same tables, columns, keys, references and indexes" same_schema
count=$(wc --lines <"$said/statements")
succeeds "$server: PostgreSQL prepares each of $count statements" prepare_all
succeeds "$server: their places are for what the server sends" place_types
succeeds "$server: they answer in the types that the server reads" answer_types

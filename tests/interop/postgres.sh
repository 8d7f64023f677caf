#!/usr/bin/env bash
# What both servers say to their databases is understood by PostgreSQL too: every statement that they make is prepared
# there, over the tables that migrations/postgres makes, which are those of SQLite under the same names.
# The statements come from each server's own test of them, which runs every operation and writes down what was said.
# Then the registry runs on it: tests of two writers that meet, a storm of twenty seconds (BERTH_STORM_SECS; ten minutes
# with BERTH_FULL=1), connections that break, and black-box tests over sockets; with BERTH_FULL=1 all of
# those, but for what is about the file of SQLite.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/interop/engines.sh
. "$root/tests/interop/engines.sh"

# Each server's test of its statements.
declare -A test_of=(
    [registry-server]=statements::statements_cost_by_what_they_are_about
    [auth-server]=statements::no_statement_reads_all_of_a_table
)

prepare() {
    need jq jq
    need setpriv util-linux
    need openssl openssl
    need_postgres
    command -v cargo >/dev/null || skip "cargo is missing, which builds the test that writes the statements down"
    build >/dev/null || fail "the tests of the servers do not build"
}

enter_sandbox prepare

with_certificates() {
    make_certificates
    {
        echo "local all all trust"
        echo "hostssl all berth 127.0.0.1/32 scram-sha-256"
    } >"$postgres/data/pg_hba.conf"
    start_postgres -c ssl=on -c ssl_cert_file=server.pem -c ssl_key_file=server.key
}

# Of a CA that nobody else knows, for the name db.test.
make_certificates() {
    local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
    openssl req -x509 "${key[@]}" -days 2 -keyout "$scratch/ca.key" -out "$scratch/ca.pem" -subj "/CN=the CA" 2>/dev/null
    openssl req "${key[@]}" -keyout "$postgres/data/server.key" -out "$scratch/server.csr" -subj "/CN=db.test" 2>/dev/null
    openssl x509 -req -in "$scratch/server.csr" -CA "$scratch/ca.pem" -CAkey "$scratch/ca.key" -CAcreateserial -days 2 \
        -extfile <(echo "subjectAltName=DNS:db.test") -out "$postgres/data/server.pem" 2>/dev/null
    chown postgres: "$postgres"/data/server.{key,pem}
    chmod 0600 "$postgres/data/server.key"
    chmod 0644 "$scratch/ca.pem"
    printf '127.0.0.1 db.test other.test\n' >>/etc/hosts
}

write_down() {
    mkdir -p "$said"
    BERTH_SQL_DIR=$said "$(tests_of "$server")" --exact "${test_of[$server]}"
    [[ -s $said/statements && -s $said/schema ]]
}

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
    || CASE is_generated WHEN 'ALWAYS' THEN ' generated' ELSE '' END
FROM information_schema.columns WHERE table_schema = 'public';
SELECT CASE contype WHEN 'p' THEN 'key' WHEN 'u' THEN 'unique' ELSE 'reference' END
    || ' ' || conrelid::regclass || ' (' || pg_temp.names(conrelid, conkey) || ')'
    || CASE WHEN contype = 'f' THEN ' to ' || confrelid::regclass
           || ' (' || pg_temp.names(confrelid, confkey) || ') '
           || CASE confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'a' THEN 'NO ACTION' ELSE confdeltype::text END
       ELSE '' END
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'c';
SELECT 'index ' || indexrelid::regclass || ' on ' || indrelid::regclass
    || ' (' || pg_temp.names(indrelid, indkey::smallint[]) || ')'
    || COALESCE(' where ' || trim(BOTH '()' FROM pg_get_expr(indpred, indrelid)), '')
FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
WHERE c.relnamespace = 'public'::regnamespace
AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.indexrelid AND k.contype IN ('p', 'u'));
SQL
}

# What auth-server has there alone: users are a table in place of a file, of which what is known of one is a view.
there_alone='(column|key|unique|index) (state|users|signing_keys|keys_version|htpasswd_seen)[. ]'

same_schema() {
    local except='^$'
    [[ $server != auth-server ]] || except=$there_alone
    diff <(grep --extended-regexp --invert-match "$except" "$said/schema" | sort) \
        <(schema_of_postgres | grep --extended-regexp --invert-match "$except" | sort)
}

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

# What triggers keep in line and what is generated is compared with what the rows say.
counts_are_right() {
    local wrong
    wrong=$(psql_plain --set ON_ERROR_STOP=1 --file - 2>&1 <<'SQL'
INSERT INTO audit (id, at, event, subject, actor, detail) SELECT row_number() OVER (), v.* FROM (VALUES
    (0, 'user.add', 'act', 'root', '{}'), (0, 'login.fail', 'guess', NULL, '{"checked":true}'),
    (0, 'login.fail', 'unchecked', NULL, '{}'), (0, 'login.fail', 'robot.robot', NULL, '{}'),
    (0, 'login.fail', NULL, NULL, '{"checked":true}'), (0, 'login.busy', 'busy', NULL, '{}'),
    (0, 'token.deny', 'deny', NULL, '{}'), (0, 'token.deny', 'anonymous', NULL, '{}'),
    (0, 'token.issue', 'issue', NULL, '{}'), (0, 'token.issue', 'issue', NULL, '{}')) v;
DELETE FROM audit WHERE subject IN ('robot.robot', 'issue') AND id <> (SELECT MAX(id) FROM audit);
SELECT id, subject, ring FROM audit WHERE ring <> CASE subject WHEN 'anonymous' THEN 'issue' ELSE COALESCE(subject, 'nobody') END;
SELECT r.ring, r.rows FROM audit_rings r WHERE rows <> (SELECT COUNT(*) FROM audit a WHERE a.ring = r.ring);
INSERT INTO sign_in_addresses VALUES ('a', 'b', 0), ('a', 'c', 0), ('a', 'd', 0);
INSERT INTO sign_in_addresses VALUES ('a', 'b', 1), ('b', 'b', 1)
ON CONFLICT (name, address) DO UPDATE SET seen = excluded.seen;
DELETE FROM sign_in_addresses WHERE address = 'b';
SELECT 'addresses', value FROM sign_in_address_count WHERE value <> (SELECT COUNT(*) FROM sign_in_addresses);
SELECT 'acts', value FROM policy_version WHERE value <> 0;
-- Ahead of the clock, so that each act adds one.
UPDATE policy_version SET value = 9000000000000000;
INSERT INTO robots VALUES ('robot.a', 'a', 0, NULL, NULL);
UPDATE robots SET last_used = 1;
UPDATE robots SET expires = 1;
DELETE FROM robots;
INSERT INTO grants (grantee, pattern, actions, created) VALUES ('a', 'b', 'pull', 0), ('a', 'c', 'pull', 0);
SELECT 'acts', value FROM policy_version WHERE value <> 9000000000000004;
SQL
    )
    printf '%s' "$wrong"
    [[ -z $wrong ]]
}

# What is done with the file of SQLite, or to it, and what PostgreSQL has no part in.
about_the_file=(backup:: inventory:: a_blob_whose_last_byte_has_come what_a_gone_client_asked_for every_refusal_reads
    a_registry_that_has_stopped_has_nothing_open what_is_stored_and_who_came_for_it)
# Where statements are made that no other module makes, or locks are taken.
modules=(manifests:: push:: pull:: mounts:: lists:: collection:: collection_load:: children:: races:: verification::
    broken_push:: advisories_reading:: export:: caches::)

meet() { BERTH_STORM_SECS=${BERTH_STORM_SECS:-$((${BERTH_FULL:+600} + 20))} "$(tests_of registry-server)" --ignored --skip at_s3 --test-threads 1; }

several() { "$(tests_of auth-server)" --ignored; }

round_trips() { "$(tests_of it)" --ignored round_trips; }

breaks() { "$(tests_of it)" --ignored broken_database; }

moves() { "$(tests_of it)" --ignored moves_to_postgresql; }

black_box() {
    local skipped=() name
    for name in "${about_the_file[@]}"; do skipped+=(--skip "$name"); done
    [[ -z ${BERTH_FULL:-} ]] || modules=()
    "$(tests_of it)" "${skipped[@]}" "${modules[@]}"
}

make_postgres
with_certificates
for name in registry-server auth-server; do
    psql_plain --command "CREATE DATABASE \"$name\""
    server=$name said=$scratch/said/$name migrations=$root/$name/migrations
    succeeds "$server: SQLite and PostgreSQL have the same migrations" same_migrations
    succeeds "$server: its own test writes down what it says" write_down
    succeeds "$server: PostgreSQL takes the migrations" migrate
    succeeds "$server: they make the same tables, columns, keys, references and indexes" same_schema
    count=$(wc --lines <"$said/statements")
    succeeds "$server: PostgreSQL prepares each of $count statements" prepare_all
    succeeds "$server: their places are for what the server sends" place_types
    succeeds "$server: they answer in the types that the server reads" answer_types
    [[ $server != auth-server ]] || succeeds "$server: what triggers count there is what the rows say" counts_are_right
    server=
done

# The tables of each test lie in a schema of their own there.
psql_plain --command 'CREATE DATABASE tests'
export BERTH_TEST_POSTGRES="postgres://postgres@localhost/tests?host=$postgres&port=$postgres_port"
psql_plain --command "CREATE ROLE berth LOGIN PASSWORD 'a password of the test'" --command 'CREATE DATABASE tls OWNER berth'
printf 'a password of the test\n' >"$scratch/password"
export BERTH_TEST_POSTGRES_TLS="postgres://berth@db.test:$postgres_port/tls" BERTH_TEST_POSTGRES_CA=$scratch/ca.pem
export BERTH_TEST_POSTGRES_PASSWORD=$scratch/password
succeeds "registry-server: two writers that meet lose nothing, and servers that would are refused" meet
succeeds "auth-server: acts of several follow each other, with users and sealed keys in the database" several
succeeds "registry-server: black-box tests pass on PostgreSQL" black_box
succeeds "registry-server: no request takes more round trips to PostgreSQL than it did" round_trips
succeeds "registry-server: a registry moves from SQLite to PostgreSQL and back" moves
succeeds "registry-server: nothing is half done wherever its connection to PostgreSQL breaks" breaks

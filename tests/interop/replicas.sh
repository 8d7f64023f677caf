#!/usr/bin/env bash
# Three registry-servers that share a registry, its rows in PostgreSQL and its objects at VersityGW: black-box tests
# whose every connection goes to the next of them, the official conformance suite and docker through nginx, which gives
# each request to the next, verbs beside them, and clients that push while one of them is killed (BERTH_ROUNDS times) and
# while PostgreSQL or the store is stopped, or PostgreSQL is killed and started again. They ask two auth-servers over the
# link, as on other machines, which have users, grants, keys and audit in PostgreSQL too.
# BERTH_FULL=1 runs all black-box tests, but for what is about one server, and kills 50 times.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/interop/suite.sh
. "$root/tests/interop/suite.sh"
# shellcheck source=tests/interop/go-clients.sh
. "$root/tests/interop/go-clients.sh"
# shellcheck source=tests/interop/engines.sh
. "$root/tests/interop/engines.sh"

replicas=3
rounds=${BERTH_ROUNDS:-$((${BERTH_FULL:+40} + 10))}

prepare() {
    need_docker
    need_static_compiler
    need curl curl
    need jq jq
    need nginx nginx
    need setpriv util-linux
    need_binaries
    need_programs crash
    need_postgres
    need_suite
    go_tool "$versitygw"
    command -v cargo >/dev/null || skip "cargo is missing, which builds the tests"
    build >/dev/null || fail "the tests of the servers do not build"
}

enter_sandbox prepare

# shellcheck source=tests/interop/stack.sh
. "$root/tests/interop/stack.sh"

# ---------------------------------------------------------------- the engines, and how they are taken away

# places DATABASE: the tables of a registry's settings, with rows and objects of that name.
places() {
    cat <<TOML

[database]
url = "postgres://postgres@localhost/$1?host=$postgres&port=$postgres_port"

[store]
url = "s3://$s3_bucket/$1"
endpoint = "http://127.0.0.1:$s3_port"
access_key_file = "$scratch/s3.name"
secret_key_file = "$scratch/s3.secret"
part_bytes = 5242880
TOML
}

start_engines() {
    printf '%s\n' "$s3_key" >"$scratch/s3.name"
    printf '%s\n' "$s3_secret" >"$scratch/s3.secret"
    chmod 0600 "$scratch/s3.name" "$scratch/s3.secret"
    start_s3
    make_postgres
    start_postgres -c fsync=on
    psql_plain --command 'CREATE DATABASE tests' --command 'CREATE DATABASE suite' --command 'CREATE DATABASE crash' \
        --command 'CREATE DATABASE auth'
}

# Programs that take one of them away and end when it is back: their names are told. What one starts is left to the
# sandbox's end.
write_disturbances() {
    local of_postgres="\$(pgrep --full 'postgres -D data') \$(pgrep --parent \"\$(head -n 1 $postgres/data/postmaster.pid)\")"
    local of_store="\$(pgrep --full '^versitygw')"
    disturbance "PostgreSQL stopped for ten seconds" "stopped $of_postgres"
    disturbance "the store stopped for ten seconds" "stopped $of_store"
    disturbance "PostgreSQL killed and started again" "kill -KILL $of_postgres; sleep 1
rm -f $postgres/data/postmaster.pid $postgres/.s.PGSQL.$postgres_port.lock
${as_postgres[*]} $bin_of_postgres/postgres -D data -k $postgres -c listen_addresses=127.0.0.1 -c port=$postgres_port \
    -c max_connections=300 >>$scratch/logs/postgres.log 2>&1 &
until ${as_postgres[*]} $bin_of_postgres/psql --host $postgres --port $postgres_port --dbname postgres --command 'SELECT 1'; do sleep 0.1; done"
}

disturbances=()
disturbance() {
    local program=$scratch/disturbances/$1
    mkdir -p "$scratch/disturbances"
    # shellcheck disable=SC2016 # it is another shell's
    printf '#!/bin/bash\nstopped() { kill -STOP "$@"; sleep 10; kill -CONT "$@"; }\n{\n%s\n} >/dev/null 2>&1\n' "$2" >"$program"
    chmod +x "$program"
    disturbances+=(--disturb "$program")
}

# ---------------------------------------------------------------- black-box tests

# What one server does at once, the others find out: what is deleted is found by its digest for ten seconds more, the
# control socket is one server's, and so is what it has in memory.
about_one_server=(backup:: inventory:: a_read_only_registry_serves a_damaged_blob_is_not_there a_registry_that_has_stopped
    deleting_a_manifest_takes_its_tags what_is_deleted_stays_so a_full_disk bytes_that_are_on_their_way_count_too
    uploads_that_trickle_keep_nobody uploads_whose_clients_think a_client_that_leaves_in_its_only_request
    a_second_patch_stops_a_half_open_first a_session_can_be_cancelled_under a_stream_that_is_reset
    an_http2_stream_that_is_reset an_object_that_nothing_owns a_cancelled_session_is_gone
    without_grace_nothing_acknowledged what_is_stored_and_who_came what_was_put_right_is_served
    hundreds_of_pulls_that_nobody_takes an_upload_under_way_records_nothing)
modules=(push:: mounts:: broken_push:: races::)

together() { "$(tests_of it)" --ignored replicas:: auth_shared::; }

black_box() {
    local skipped=() name
    for name in "${about_one_server[@]}"; do skipped+=(--skip "$name"); done
    [[ -z ${BERTH_FULL:-} ]] || modules=()
    BERTH_TEST_LINK=1 BERTH_TEST_REPLICAS=$replicas "$(tests_of it)" "${skipped[@]}" "${modules[@]}"
}

# ---------------------------------------------------------------- a registry behind nginx

nginx_port=$(free_port)
declare -a ports=()

# The settings of each, which takes TLS from nginx.
settings_of() { printf '%s/registry-%d.toml' "$data" "$1"; }

share() {
    local number
    for ((number = 0; number < replicas; number++)); do
        ports[number]=$(free_port)
        {
            awk -v urls="\"https://$host:$nginx_port\"" -v port="${ports[number]}" -v number="$number" '
                /^\[/ { in_tls = ($0 ~ /^\[tls\]/) }
                in_tls || /^(listen|public_urls|trusted_proxies|data|auth_socket) / { next }
                { print }
                /^log =/ {
                    print "listen = \"127.0.0.1:" port "\""
                    print "public_urls = [" urls "]"
                    print "trusted_proxies = [\"127.0.0.1/32\"]"
                    print "data = \"registry-" number "\""
                }' "$data/registry.toml"
            # What is deleted is to be gone at once, for the suite and for what is counted at the end.
            printf '\n[collection]\ndeleted_objects_kept_secs = 0\n'
            places suite
            cat "$scratch/link.toml"
        } >"$(settings_of "$number")"
        start "registry-$number" "$bin/registry-server" --config "$(settings_of "$number")"
    done
    for ((number = 0; number < replicas; number++)); do
        wait_for 60 "registry-server $number to be healthy" "$bin/registry-server" --config "$(settings_of "$number")" health
    done
}

# Two auth-servers on one database, at two addresses of one name, with the users of the first one's file.
share_auth() {
    succeeds "authctl key seal" ctl key seal --out "$data/sealing.key"
    {
        printf '\n[keys]\nsealed_with = "sealing.key"\n\n[database]\n'
        printf 'url = "postgres://postgres@localhost/auth?host=%s&port=%s"\n' "$postgres" "$postgres_port"
    } >>"$data/auth.toml"
    says "authctl user import" 0 'added: andrew' ctl user import "$data/htpasswd"
    ctl grant andrew '**:*' >/dev/null
    sed -e 's|^data = .*|data = "auth-2"|' -e 's|^socket = .*|socket = "run/auth-2.sock"|' \
        -e 's|^listen = "127.0.0.1:|listen = "127.0.0.2:|' "$data/auth.toml" >"$data/auth-2.toml"
    start auth-server "$bin/auth-server" --config "$data/auth.toml"
    start auth-server-2 "$bin/auth-server" --config "$data/auth-2.toml"
    wait_for 30 "auth-server to be healthy" "$bin/auth-server" --config "$data/auth.toml" health
    wait_for 30 "the other to be healthy" "$bin/auth-server" --config "$data/auth-2.toml" health
}

# ask_auth ADDRESS PASSWORD: the status that one of them answers with, asked past the registry.
ask_auth() {
    curl --silent --output /dev/null --write-out '%{http_code}' --cacert "$data/ca.pem" \
        --resolve "auth.test:$link_port:$1" --header "X-Berth-Link: $(cat "$data/secret")" --user "andrew:$2" \
        "https://auth.test:$link_port/token?service=berth"
}

answers() { [[ $(ask_auth "$1" "$2") == "$3" ]]; }

either_auth_server_may_die() {
    local name settings another='another päss'
    for name in auth-server auth-server-2; do
        settings=$data/auth${name#auth-server}.toml
        kill -KILL "${pid_of[$name]}"
        wait "${pid_of[$name]}" 2>/dev/null || true
        unset "pid_of[$name]"
        succeeds "docker login while $name is dead" sign_in "$registry" andrew "$andrew_password"
        succeeds "docker pull" docker pull "$registry/team/greeter:1"
        start "$name" "$bin/auth-server" --config "$settings"
        wait_for 30 "$name to be healthy" "$bin/auth-server" --config "$settings" health
    done
    printf '%s\n' "$another" | ctl user passwd andrew --password-stdin >/dev/null
    for name in 127.0.0.1 127.0.0.2; do
        succeeds "the old password is refused at $name" answers "$name" "$andrew_password" 401
        succeeds "the new one is taken at $name" answers "$name" "$another" 200
    done
    printf '%s\n' "$andrew_password" | ctl user passwd andrew --password-stdin >/dev/null
    succeeds "docker login with the password of before, set again" sign_in "$registry" andrew "$andrew_password"
    says "authctl key rotate --now" 0 'signs? from now on' ctl key rotate --now
    succeeds "tokens of the new key are taken at once" docker pull "$registry/team/greeter:1"
    succeeds "no number of the audit is missing" numbers_are_dense
    : >"$scratch/nobody"
    refused "users of an empty file" 'has no users: nothing was changed' ctl user apply "$scratch/nobody" --prune
    refused "authctl backup" "PostgreSQL's own means" ctl backup "$scratch/auth-backup"
    says "authctl audit --follow tells what happens" 0 'grant.add' followed
}

numbers_are_dense() { ctl audit --after 0 | jq --exit-status --slurp 'map(.id) == [range(1; length + 1)]'; }

followed() {
    "$bin/authctl" --config "$data/auth.toml" audit --follow >"$scratch/followed" 2>&1 &
    local follower=$!
    sleep 1
    ctl grant andrew 'followed/**:pull' >/dev/null
    wait_for 10 "the row to be told" grep --quiet followed "$scratch/followed"
    kill "$follower"
    cat "$scratch/followed"
}

# The shipped file with three servers in place of one: each request goes to the next, and none to two.
start_nginx() {
    local kind servers
    servers=$(printf 'server 127.0.0.1:%s; ' "${ports[@]}")
    mkdir -p "$scratch/nginx"
    sed -e "s|443 ssl|$nginx_port ssl|" -e "s|/etc/ssl/berth/|$certs/|" -e "s|server 127.0.0.1:5000;|$servers|" \
        "$root/deploy/nginx/berth.conf" >"$scratch/nginx/berth.conf"
    {
        printf 'user root; daemon off; error_log stderr; pid %s;\n' "$scratch/nginx/pid"
        printf 'events { worker_connections 1024; }\nhttp {\n    access_log off;\n    proxy_next_upstream off;\n'
        for kind in client_body proxy fastcgi uwsgi scgi; do
            printf '    %s_temp_path %s;\n' "$kind" "$scratch/nginx/$kind"
        done
        printf '    include %s;\n}\n' "$scratch/nginx/berth.conf"
    } >"$scratch/nginx/nginx.conf"
    start nginx nginx -e stderr -p "$scratch/nginx" -c "$scratch/nginx/nginx.conf"
    wait_for 20 "nginx to answer" curl --silent --fail --cacert "$certs/ca.pem" "https://$host:$nginx_port/healthz"
}

# Sparse images and indexes are refused unless the settings say otherwise.
accept_sparse_manifests() {
    local number
    for ((number = 0; number < replicas; number++)); do
        printf '\n[limits]\nsparse_manifests = true\n' >>"$(settings_of "$number")"
        kill -HUP "${pid_of[registry-$number]}"
        wait_for 10 "the settings to be read again" grep --quiet 'was read again' "$scratch/logs/registry-$number.log"
    done
}

# All three have answered about as often.
each_had_its_share() {
    local number least=999999 most=0 count
    for ((number = 0; number < replicas; number++)); do
        count=$(grep --count --extended-regexp 'status=2' "$scratch/logs/registry-$number.log")
        note "registry-server $number answered $count requests with 2xx"
        ((count > most)) && most=$count
        ((count < least)) && least=$count
    done
    ((least * 2 > most))
}

# registry NUMBER VERB...: by the settings of one of them.
registry() { "$bin/registry-server" --config "$(settings_of "$1")" "${@:2}"; }

docker_through() {
    start_dockerd
    make_greeter greeter
    trust "$registry" "$certs/ca.pem"
    succeeds "docker login" sign_in "$registry" andrew "$andrew_password"
    docker tag greeter "$registry/team/greeter:1"
    succeeds "docker push, each request to another server" docker push "$registry/team/greeter:1"
    docker image rm --force greeter "$registry/team/greeter:1" >/dev/null
    succeeds "docker pull" docker pull "$registry/team/greeter:1"
    says "docker run" 0 "$greeting" docker run --rm "$registry/team/greeter:1"
}

verbs_beside() {
    says "list, by the settings of a server" 0 'team/greeter' registry 0 list
    says "gc beside the servers" 0 'removed' registry 1 gc
    says "gc --dry-run beside them" 0 'would remove' registry 1 gc --dry-run
    says "verify beside them" 0 '0 damaged' registry 2 verify
    says "backup beside them" 0 'backed up' registry 0 backup "$scratch/backup"
    says "export beside them" 0 'exported 1 image' registry 1 export team/greeter:1 "$scratch/layout"
    refused "a restore into a registry that servers share" 'is in use' registry 2 restore "$scratch/backup"
    says "read-only, for all servers" 0 'read-only: pulls go on' registry 1 read-only on
    refused "docker push to a registry that is read-only" 'read-only' docker push "$registry/team/greeter:1"
    succeeds "docker pull from it" docker pull "$registry/team/greeter:1"
    says "a collection of a registry that is read-only" 1 'read-only' registry 2 gc
    says "pushes are taken again" 0 'taken again' registry 2 read-only off
    wait_for 10 "all to have heard it" docker push "$registry/team/greeter:1"
    says "delete, beside them" 0 'deleted team/greeter:1' registry 0 delete team/greeter:1
    says "a server with its objects on a disk" 1 'in use by registry-servers that share it|in a bucket' on_a_disk
}

# A newer program has been at the tables of both: it adds to each of them, which changes nothing for older ones that run
# or start. Then it takes something away that they need, and those that start say so.
beside_a_newer_program() {
    local of
    for of in suite auth; do
        server=$of psql_plain --command "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
            VALUES (1000000, 'from the future', TRUE, 'x', 0)" --command "DO \$\$ DECLARE name TEXT; BEGIN
            FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations'
            LOOP EXECUTE format('ALTER TABLE %I ADD COLUMN of_the_future TEXT', name); END LOOP; END \$\$"
    done
    succeeds "docker push beside a newer program" docker push "$registry/team/greeter:1"
    says "authctl grant beside it" 0 'granted' ctl grant andrew 'future/**:pull'
    stop registry-0
    stop auth-server-2
    start registry-0 "$bin/registry-server" --config "$(settings_of 0)"
    start auth-server-2 "$bin/auth-server" --config "$data/auth-2.toml"
    wait_for 60 "a registry-server that starts beside it" "$bin/registry-server" --config "$(settings_of 0)" health
    wait_for 30 "an auth-server that starts beside it" "$bin/auth-server" --config "$data/auth-2.toml" health
    succeeds "docker login" sign_in "$registry" andrew "$andrew_password"
    succeeds "docker push" docker push "$registry/team/greeter:1"
    says "registry-server schema" 0 'of version 1000000, .*works beside the newer' registry 0 schema
    stop registry-0
    stop auth-server-2
    for of in suite auth; do
        server=$of psql_plain --command 'UPDATE state SET compatible_from = compatible_from + 1000000'
    done
    refused "a registry-server that is too old for the tables" 'newer version of Berth' \
        timeout 60 "$bin/registry-server" --config "$(settings_of 0)"
    refused "an auth-server that is" 'newer version of Berth' timeout 60 "$bin/auth-server" --config "$data/auth-2.toml"
    refused "authctl" 'newer version of Berth' ctl grants
    for of in suite auth; do
        server=$of psql_plain --command 'UPDATE state SET compatible_from = compatible_from - 1000000' \
            --command 'DELETE FROM _sqlx_migrations WHERE version = 1000000'
    done
    start registry-0 "$bin/registry-server" --config "$(settings_of 0)"
    start auth-server-2 "$bin/auth-server" --config "$data/auth-2.toml"
    wait_for 60 "registry-server 0 to be healthy" "$bin/registry-server" --config "$(settings_of 0)" health
    wait_for 30 "the other auth-server to be healthy" "$bin/auth-server" --config "$data/auth-2.toml" health
}

# The same rows, and no store.
on_a_disk() {
    sed '/^\[store\]/,$d' "$(settings_of 0)" | sed 's/^data = .*/data = "on-a-disk"/' >"$data/on-a-disk.toml"
    timeout 60 "$bin/registry-server" --config "$data/on-a-disk.toml"
}

# ---------------------------------------------------------------- deaths and pauses

crash() {
    places crash >"$scratch/places.toml"
    "$programs/crash" --bin "$bin" --replicas "$replicas" --victim replica --places "$scratch/places.toml" \
        --largest 14000000 --data "$scratch/$1" "${@:2}"
}

# By the settings of the servers that were killed: everything is collected without grace, what their clients have still
# open ends, and what was on its way an hour ago is taken for gone.
bucket_and_rows_agree() {
    local settings=$scratch/$1/disk/data/agree.toml
    sed -e 's/^grace_secs = 60/grace_secs = 0\ndeleted_objects_kept_secs = 0/' \
        -e 's/^free_bytes_min = 0/free_bytes_min = 0\nupload_idle_secs_max = 1/' "$scratch/$1/disk/data/registry.toml" >"$settings"
    sleep 2
    local times
    for times in 1 2; do
        # shellcheck disable=SC2097,SC2098 # it is another program's
        server=crash psql_plain --command 'UPDATE dead_objects SET due = 0'
        "$bin/registry-server" --config "$settings" gc >"$scratch/logs/gc-$times.log" || return
    done
    says "what was acknowledged is whole behind a collection without grace" 0 '0 damaged' \
        "$bin/registry-server" --config "$settings" verify
    server=crash psql_plain --command 'SELECT location FROM blobs' | sort >"$scratch/rows"
    find "$s3_folder/../$s3_bucket/crash" -type f ! -name registry.json -printf '%f\n' | sort >"$scratch/objects"
    note "$(wc --lines <"$scratch/objects") objects"
    diff "$scratch/rows" "$scratch/objects"
}

# ----------------------------------------------------------------

start_engines
export BERTH_TEST_S3="http://$s3_key:$s3_secret@127.0.0.1:$s3_port/$s3_bucket" BERTH_TEST_S3_FOLDER=$s3_folder
export BERTH_TEST_POSTGRES="postgres://postgres@localhost/tests?host=$postgres&port=$postgres_port"
succeeds "three servers do what one does, also when one of them is cut off" together
succeeds "black-box tests pass with three servers, each connection to the next" black_box

succeeds "authctl init" init_berth
link_host=auth.test
printf '127.0.0.1 auth.test\n127.0.0.2 auth.test\n' >>/etc/hosts
succeeds "authctl link init" link_up
share_auth
share
start_nginx
registry=$host:$nginx_port
run_suite 1.1 andrew "$andrew_password" OCI_VERSION=1.1
accept_sparse_manifests
run_suite dev-sparse andrew "$andrew_password" OCI_VERSION=dev OCI_DATA_SPARSE=true
succeeds "each of the servers had its share" each_had_its_share
docker_through
either_auth_server_may_die
beside_a_newer_program
verbs_beside
for ((number = 0; number < replicas; number++)); do stop "registry-$number"; done

note "one of them is killed $rounds times"
crash deaths --rounds "$rounds"
bucket_and_rows_agree deaths || fail "bucket and rows do not agree"
ok "bucket and rows agree"
psql_plain --command 'DROP DATABASE crash' --command 'CREATE DATABASE crash'
rm -rf "${s3_folder:?}/crash"
write_disturbances
crash pauses --rounds $((${#disturbances[@]} / 2)) "${disturbances[@]}" || fail "what they stand on was away"

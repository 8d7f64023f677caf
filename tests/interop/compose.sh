#!/usr/bin/env bash
# compose.yaml with the image that the Dockerfile makes of the binaries already built, on a base made here:
# healthy, walled off from each other, used by a real docker over TLS, and back by itself after a kill -9.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

prepare() {
    need_docker
    docker compose version >/dev/null 2>&1 || need docker-compose docker-compose
    need_static_compiler
    need curl curl
    need_binaries
    # Outside, because inside there is no network to fetch Debian's packages over.
    bash "$root/tests/interop/base-image.sh" >/dev/null || exit $?
}

enter_sandbox prepare

port=$(free_port)
registry=$host:$port
password='a pass for the compose test: 100%'
export BERTH_HOST=$host BERTH_PORT=$port BERTH_IMAGE=berth:interop COMPOSE_PROJECT_NAME=berth

# Compose v2 where it is installed, else Debian's docker-compose.
compose() {
    local program=(docker-compose)
    if docker compose version >/dev/null 2>&1; then
        program=(docker compose)
    fi
    "${program[@]}" --file "$root/compose.yaml" --project-directory "$root" "$@" </dev/stdin
}

# container SERVICE: the id of its running container. docker answers much faster than docker-compose does.
container() {
    docker ps --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
        --filter "label=com.docker.compose.service=$1"
}
state() { docker inspect --format "$2" "$(container "$1")"; }
is_healthy() { [[ $(state "$1" '{{.State.Health.Status}}') == healthy ]]; }

# ---------------------------------------------------------------- the image

load_base() {
    local tar_file
    tar_file=$(bash "$root/tests/interop/base-image.sh")
    docker import "$tar_file" berth-interop-base >/dev/null
}

# The checkout itself is the build context, so that .dockerignore is tested too.
build_image() {
    local context=$root binaries=${bin#"$root"/}
    if [[ $binaries != target/release && $binaries != target/debug ]]; then
        context=$scratch/context binaries=bin
        install -D -t "$context/bin" "$bin/auth-server" "$bin/registry-server" "$bin/authctl"
        cp "$root/Dockerfile" "$root/LICENSE" "$context/"
    fi
    docker build --target prebuilt --build-arg BASE=berth-interop-base --build-arg "BINARIES=$binaries" \
        --tag "$BERTH_IMAGE" "$context"
}

has_all_programs() {
    docker run --rm "$BERTH_IMAGE" authctl --version &&
        docker run --rm "$BERTH_IMAGE" auth-server --version &&
        docker run --rm "$BERTH_IMAGE" registry-server --version
}

# ---------------------------------------------------------------- the checks

comes_up() {
    succeeds "compose up" compose up --detach
    local service
    for service in auth registry; do
        wait_for 90 "$service to be healthy" is_healthy "$service"
        ok "$service is healthy"
    done
}

first_user() {
    add_andrew() { printf '%s\n' "$password" | compose run --rm -T authctl user add andrew --password-stdin --grant '**:*'; }
    succeeds "compose run authctl user add, the password by stdin" add_andrew
    copy_ca() { compose exec -T registry cat /var/lib/berth/certs/ca.pem >"$scratch/ca.pem"; }
    succeeds "the CA's certificate is read out of the registry's container" copy_ca
}

serves_docker() {
    refused "docker refuses the server while its CA is not in certs.d" 'x509|certificate' \
        sign_in "$registry" andrew "$password"
    trust "$registry" "$scratch/ca.pem"
    refused "wrong password" 'unauthorized|denied' sign_in "$registry" andrew wrong
    succeeds "docker login" sign_in "$registry" andrew "$password"
    docker tag greeter "$registry/andrew/hello:1"
    succeeds "docker push" docker push "$registry/andrew/hello:1"
    pulls "docker pull"
}

# pulls WHAT: the image is fetched anew, and runs.
pulls() {
    docker image rm --force "$registry/andrew/hello:1" greeter >/dev/null 2>&1 || true
    succeeds "$1" docker run --rm "$registry/andrew/hello:1"
    grep --quiet --fixed-strings "$greeting" <<<"$output" || fail "the container did not greet"
}

# in_container SERVICE COMMAND...
in_container() { docker exec "$(container "$1")" "${@:2}"; }

is_walled_off() {
    local service
    for service in auth registry; do
        is_confined "$service"
    done
    # First that there is something to hide, then that it is hidden.
    local keys ca_key
    keys=$(in_container auth find /var/lib/berth/auth/keys -type f)
    [[ -n $keys ]] || fail "no signing keys under /var/lib/berth/auth/keys"
    ca_key=$(compose run --rm -T --entrypoint find authctl /var/lib/berth/ca -name ca.key 2>/dev/null)
    [[ -n $ca_key ]] || fail "no ca.key under /var/lib/berth/ca"
    local hidden key
    hidden=(-name ca.key)
    while read -r key; do
        hidden+=(-o -name "$(basename "$key")")
    done <<<"$keys"
    hidden+=(-o -name htpasswd -o -name auth.db)
    local found
    found=$(in_container registry find / -path /proc -prune -o \( "${hidden[@]}" \) -print 2>/dev/null || true)
    [[ -z $found ]] || fail "the registry sees $found"
    ok "the registry sees neither the signing keys, nor ca.key, nor htpasswd, nor auth.db"
    # auth renews the certificate: it writes beside server.pem, and reads the CA's key without being able to change it.
    succeeds "auth may read the CA's key" in_container auth test -r /var/lib/berth/ca/ca.key
    succeeds "auth may write the certificate" in_container auth test -w /var/lib/berth/certs/server.pem
    refused "auth changes nothing of the CA" 'read-only' in_container auth touch /var/lib/berth/ca/new
    refused "the registry changes no certificate" 'read-only' in_container registry touch /var/lib/berth/certs/new
}

is_confined() {
    local status
    status=$(in_container "$1" cat /proc/1/status)
    grep --quiet --perl-regexp '^Uid:\t10001\t10001\t10001\t10001$' <<<"$status" || fail "$1 does not run as 10001"
    grep --quiet --perl-regexp '^CapEff:\t0+$' <<<"$status" || fail "$1 has capabilities"
    grep --quiet --perl-regexp '^NoNewPrivs:\t1$' <<<"$status" || fail "$1 can gain privileges"
    ok "$1 runs as user 10001, without capabilities"
    refused "$1's root file system" 'read-only' in_container "$1" touch /var/lib/berth/new
}

# comes_back SERVICE: its main process is killed from outside; `docker kill` would count as a wish to stop.
comes_back() {
    local pid
    pid=$(state "$1" '{{.State.Pid}}')
    kill -KILL "$pid"
    wait_for 30 "$1 to be started again" is_restarted "$1" "$pid"
    wait_for 90 "$1 to be healthy again" is_healthy "$1"
    pulls "$1 was killed and came back by itself; docker pull works"
}

is_restarted() {
    local pid
    pid=$(state "$1" '{{.State.Running}} {{.State.Pid}}')
    [[ $pid == "true "* && $pid != "true $2" ]]
}

# A name is added in .env and `up` typed again: the certificate is renewed, and the registry knows its new name.
answers_to_another_name() {
    local other=harbour.homelab.lan
    printf '%s %s\n' "$host_address" "$other" >>/etc/hosts
    export BERTH_HOST=$host,$other
    succeeds "compose up with one more name in BERTH_HOST" compose up --detach
    wait_for 30 "the registry to answer to $other" challenges_as "$other"
    ok "the registry answers to $other, under a certificate for it, and sends clients to its /token"
}

challenges_as() {
    curl --silent --dump-header - --cacert "$scratch/ca.pem" "https://$1:$port/v2/" |
        grep --ignore-case --fixed-strings "realm=\"https://$1:$port/token\""
}

# The volumes stay when the containers are removed, and `init` finds everything made.
survives_down_and_up() {
    succeeds "compose down" compose down
    succeeds "compose up" compose up --detach
    wait_for 30 "the registry to answer" curl --silent --cacert "$scratch/ca.pem" "https://$registry/v2/"
    pulls "after down and up the image, the user and the certificate are still there"
}

keeps_the_password_out_of_logs() {
    compose logs --no-color >"$scratch/compose-logs"
    [[ -s $scratch/compose-logs ]] || fail "compose logs printed nothing"
    ! grep --fixed-strings -e "$password" "$scratch/compose-logs" || fail "the password stands in the logs"
    ok "no password stands in compose logs"
}

# ----------------------------------------------------------------

# What a failed run shows besides the daemon's log.
keep_logs() { compose logs --no-color --tail=60 >"$scratch/logs/compose.log" 2>&1; }

on_failure=keep_logs
start_dockerd
load_base
succeeds "the Dockerfile makes an image of prebuilt binaries" build_image
succeeds "all three programs run in it" has_all_programs
make_greeter greeter
comes_up
first_user
serves_docker
is_walled_off
comes_back registry
comes_back auth
keeps_the_password_out_of_logs
answers_to_another_name
survives_down_and_up

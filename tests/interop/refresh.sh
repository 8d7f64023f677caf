#!/usr/bin/env bash
# Refresh tokens, turned on: what docker keeps in place of the password, what skopeo makes of docker's file, and how it
# ends.
# shellcheck source=tests/interop/containers.sh
. "$(dirname "$0")/containers.sh"

prepare() {
    need_docker
    need skopeo skopeo
    need curl curl
    need jq jq
    need_binaries
    make_containers_place
}

enter_sandbox prepare

app=$registry/team/app

# As start_berth calls it, with refresh tokens on. The key stands before the tables.
init_berth() {
    BERTH_DATA=$data BERTH_CERTS=$certs BERTH_HOST=$host BERTH_PORT=$port \
        BERTH_USER=andrew BERTH_PASSWORD=$andrew_password "$bin/authctl" init &&
        sed --in-place '1i refresh_tokens = true' "$data/auth.toml"
}

sign_in_docker() { sign_in "$registry" "$@"; }
docker_config() { jq --raw-output --arg registry "$registry" ".auths[\$registry].$1 // empty" "$DOCKER_CONFIG/config.json"; }
with_dockers_file() { skopeo "$1" --authfile "$DOCKER_CONFIG/config.json" "${@:2}"; }
newest_id() { ctl --json refresh-tokens list --subject andrew 2>/dev/null | jq '.[-1].id'; }

# renew_image WORDS: other words are another layer, so that a push is one.
renew_image() {
    printf '%s\n' "$1" >"$scratch/image/words"
    printf 'FROM scratch\nCOPY words /words\nCMD ["/words"]\n' >"$scratch/image/Dockerfile"
    docker build --quiet --tag "$app:1" "$scratch/image" >/dev/null 2>&1 || fail "docker build"
}

# ---------------------------------------------------------------- the checks

docker_keeps_no_password() {
    refused "a wrong password, with refresh tokens on" "$denied" sign_in_docker andrew wrong
    succeeds "docker login" sign_in_docker andrew "$andrew_password"
    [[ $(docker_config identitytoken) == berth_rt_* ]] || fail "docker kept no refresh token"
    [[ $(docker_config auth | base64 --decode) == andrew: ]] || fail "docker kept a password"
    ok "docker keeps a refresh token and no password"
    [[ $(ctl --json refresh-tokens list | jq --compact-output '[.[] | [.subject, .client]]') == '[["andrew","docker"]]' ]] ||
        fail "authctl refresh-tokens list: $(ctl refresh-tokens list)"
    ok "authctl refresh-tokens list shows it"
}

clients_go_on_with_it() {
    renew_image "words for a push"
    log_mark
    succeeds "docker push" docker push "$app:1"
    log_since 'POST /token .*status=200' || fail "docker did not refresh"
    forget_images
    succeeds "docker pull" docker pull "$app:1"
    succeeds "docker manifest inspect, which asks by itself" docker manifest inspect "$app:1"
    log_mark
    succeeds "skopeo inspect with docker's file" with_dockers_file inspect "docker://$app:1"
    log_since 'POST /token .*status=200' || fail "skopeo did not refresh"
    succeeds "skopeo copy with docker's file" with_dockers_file copy "docker://$app:1" "docker://$app:2"
    # As a credential helper keeps it, and as programs send it that know no better.
    local shown
    shown="<token>:$(docker_config identitytoken)"
    succeeds "curl with the user <token>" curl --silent --fail --cacert "$certs/ca.pem" --user "$shown" "https://$registry/v2/_catalog"
    refused "curl with it as andrew's password" '401' curl --silent --show-error --fail --cacert "$certs/ca.pem" \
        --user "andrew:${shown#*:}" "https://$registry/v2/_catalog"
}

# docker_and_skopeo_are_refused WHY
docker_and_skopeo_are_refused() {
    forget_images
    refused "docker pull, $1" "$denied" docker pull "$app:1"
    refused "skopeo inspect, $1" "$denied" with_dockers_file inspect "docker://$app:1"
    # A new login mends it, with the password.
    succeeds "docker login again" sign_in_docker andrew "$andrew_password"
    succeeds "docker pull again" docker pull "$app:1"
}

it_ends() {
    ctl deny andrew 'team/**:push' >/dev/null
    renew_image "words for no push"
    refused "docker push, where a deny forbids it" "$denied" docker push "$app:1"
    ctl deny andrew 'team/**:push' --remove >/dev/null
    succeeds "docker push with the same login, where it is allowed again" docker push "$app:1"

    succeeds "authctl refresh-tokens revoke" ctl refresh-tokens revoke "$(newest_id)"
    docker_and_skopeo_are_refused "after authctl refresh-tokens revoke"

    succeeds "authctl revoke-tokens" ctl revoke-tokens andrew
    docker_and_skopeo_are_refused "after authctl revoke-tokens"

    andrew_password=another
    printf '%s\n' "$andrew_password" | ctl user passwd andrew --password-stdin >/dev/null
    docker_and_skopeo_are_refused "after a new password"
}

it_is_off_again() {
    stop auth-server
    sed --in-place 's/^refresh_tokens = true/refresh_tokens = false/' "$data/auth.toml"
    start auth-server "$bin/auth-server" --config "$data/auth.toml"
    wait_for 30 "auth-server to be healthy" "$bin/auth-server" --config "$data/auth.toml" health
    docker_and_skopeo_are_refused "with refresh tokens off"
    [[ -z $(docker_config identitytoken) ]] || fail "docker still keeps a refresh token"
    [[ $(docker_config auth | base64 --decode) == "andrew:$andrew_password" ]] || fail "docker keeps no password"
    ok "off, docker keeps the password as it always did"
}

# ----------------------------------------------------------------

mkdir -p "$scratch/image"
furnish_containers
start_dockerd
start_berth
trust "$registry" "$certs/ca.pem"
trust_containers
docker_keeps_no_password
clients_go_on_with_it
it_ends
it_is_off_again

#!/usr/bin/env bash
# Machines that sign in with tokens of their own issuer, as an administrator types it and as docker and skopeo send it.
# The issuer is a folder behind Python's web server, and openssl signs its tokens.
# shellcheck source=tests/interop/containers.sh
. "$(dirname "$0")/containers.sh"

prepare() {
    need skopeo skopeo
    need curl curl
    need jq jq
    need openssl openssl
    need python3 python3
    need_docker
    need_binaries
    make_containers_place
}

enter_sandbox prepare

issuer_port=$(free_port)
issuer=http://127.0.0.1:$issuer_port
subject=repo:org/app:ref:refs/heads/main
app=docker://$registry/team/app

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

# token AUDIENCE SUBJECT: signed by the issuer, good for five minutes.
token() {
    local now message
    now=$(date +%s)
    message=$(jq --null-input --compact-output '{alg: "RS256", kid: "one", typ: "JWT"}' | tr -d '\n' | base64url)
    message+=.$(jq --null-input --compact-output --arg iss "$issuer" --arg aud "$1" --arg sub "$2" --argjson now "$now" \
        '{iss: $iss, aud: $aud, sub: $sub, repository_owner_id: "9919", iat: $now, nbf: $now, exp: ($now + 300)}' |
        tr -d '\n' | base64url)
    printf '%s.%s' "$message" "$(printf '%s' "$message" | openssl dgst -sha256 -sign "$scratch/issuer.key" | base64url)"
}

start_issuer() {
    local folder=$scratch/issuer
    mkdir -p "$folder/.well-known"
    openssl genrsa -out "$scratch/issuer.key" 2048 2>/dev/null
    jq --null-input --arg n "$(openssl rsa -in "$scratch/issuer.key" -noout -modulus | cut -d = -f 2 | xxd_back | base64url)" \
        '{keys: [{kty: "RSA", alg: "RS256", use: "sig", kid: "one", e: "AQAB", n: $n}]}' >"$folder/keys"
    jq --null-input --arg issuer "$issuer" '{issuer: $issuer, jwks_uri: ($issuer + "/keys")}' \
        >"$folder/.well-known/openid-configuration"
    start issuer python3 -m http.server --bind 127.0.0.1 --directory "$folder" "$issuer_port"
    wait_for 10 "the issuer" curl --silent --fail "$issuer/keys"
}

xxd_back() { python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.stdin.read()))'; }

# ---------------------------------------------------------------- the checks

an_administrator_adds_it() {
    says "an issuer without TLS is refused" 2 'is not https' \
        ctl trust add github --issuer http://issuer.test --audience "$host" --subject "$subject"
    says "a subject that is open is refused with a hint" 2 'write the first two parts out' \
        ctl trust add github --issuer "$issuer" --audience "$host" --subject 'repo:*'
    says "an audience is needed" 2 '--audience' ctl trust add github --issuer "$issuer" --subject "$subject"
    local words=(trust add github --issuer "$issuer" --audience "$host" --subject "$subject"
        --claim repository_owner_id=9919 --grant team/app:push)
    says "trust add --dry-run" 0 'would trust robot.github' ctl "${words[@]}" --dry-run
    says "and there is none" 0 'there are no trusts' ctl trust list
    says "trust add" 0 'Its issuer gives keys: 1' ctl "${words[@]}"
    says "a second of that name" 1 'authctl trust remove robot.github' ctl "${words[@]}"
    says "a robot of that name" 1 'is a trust' ctl robot create github
    says "explain knows it" 0 'by the grant robot.github team/app:push' ctl explain robot.github team/app:push
    says "a trust whose issuer is down is added with a warning" 0 'warning: no token can be checked yet' \
        ctl trust add later --issuer "http://127.0.0.1:9" --audience "$host" --subject "$subject"
    ctl trust remove later >/dev/null
}

clients_use_it() {
    trust_containers
    skopeo_login() { token "$1" "$2" | skopeo login --username robot.github --password-stdin "$registry"; }
    refused "skopeo login with a token for another audience" "$denied" skopeo_login other "$subject"
    refused "skopeo login with a token of another branch" "$denied" skopeo_login "$host" "${subject}2"
    succeeds "skopeo login with a token" skopeo_login "$host" "$subject"
    make_layout "$scratch/image" trusted
    succeeds "skopeo pushes" skopeo copy "oci:$scratch/image:one" "$app:1"
    refused "skopeo pushes elsewhere" "$denied" skopeo copy "oci:$scratch/image:one" "docker://$registry/other/app:1"
    trust "$registry" "$certs/ca.pem"
    docker_login() { token "$host" "$subject" | docker login --username robot.github --password-stdin "$registry"; }
    succeeds "docker login with a token" docker_login
    succeeds "docker pulls" docker pull "$registry/team/app:1"
    says "curl with a token at the API itself" 0 '"tags":\["1"\]' curl --silent --fail --cacert "$certs/ca.pem" \
        --user "robot.github:$(token "$host" "$subject")" "https://$registry/v2/team/app/tags/list"
    says "curl with a token as bearer token at /token" 0 'repository:team/app:pull' curl --silent --fail \
        --cacert "$certs/ca.pem" --header "Authorization: Bearer $(token "$host" "$subject")" \
        "https://$registry/token?scope=repository:team/app:pull"
}

written_down_keys_need_no_issuer() {
    ctl trust remove github >/dev/null
    # Python ends with the signal.
    stop issuer || true
    says "trust add --keys" 0 'Its keys are in the database' ctl trust add github --issuer "$issuer" --audience "$host" \
        --subject "$subject" --keys "$scratch/issuer/keys" --grant team/app:push
    succeeds "skopeo login while the issuer is down" skopeo_login "$host" "$subject"
}

it_ends() {
    used() { ctl --json trust list | jq --exit-status '.[0].last_used' >/dev/null; }
    wait_for 10 "its use to be listed" used
    ok "trust list shows its last use"
    says "trust remove" 0 'void within seconds' ctl trust remove github
    refused "skopeo login after that" "$denied" skopeo_login "$host" "$subject"
    says "and no grant is left" 0 'reader' ctl grants
    ! grep --quiet robot.github <<<"$output" || fail "the trust's grants are left: $output"
    local part
    part=$(token "$host" "$subject" | cut -d . -f 1)
    ! grep --recursive --quiet --fixed-strings -e "$part." "$scratch/logs" || fail "a token is in a log"
    ok "no token is in a log"
}

# ----------------------------------------------------------------

furnish_containers
start_berth
start_issuer
start_dockerd
an_administrator_adds_it
clients_use_it
written_down_keys_need_no_issuer
it_ends

#!/usr/bin/env bash
# The main job with a real docker, over TLS with Berth's own CA, under a name that docker checks certificates for:
# login, push, pull and run; everything that must be refused; a user who may only pull; a revoked right;
# and the same behind nginx with deploy/nginx/berth.conf and the htpasswd file of the time before Berth.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

prepare() {
    need_docker
    need_static_compiler
    need curl curl
    need jq jq
    need nginx nginx
    need htpasswd apache2-utils
    need_binaries
}

enter_sandbox prepare

port=$(free_port)
registry=$host:$port
data=$scratch/data
certs=$scratch/certs
image=$registry/team/hello
public_image=$registry/public/hello
denied='unauthorized|denied'
# As a user would choose them: with characters that a careless parser trips over.
andrew_password='andrews:correct horse, "battery"'
reader_password='reader pass %41+&'
carol_password='carols pass £'

ctl() { "$bin/authctl" --config "$data/auth.toml" "$@"; }

# ---------------------------------------------------------------- first run

init() {
    BERTH_DATA=$data BERTH_CERTS=$certs BERTH_HOST=$host BERTH_PORT=$port \
        BERTH_USER=andrew BERTH_PASSWORD=$andrew_password "$bin/authctl" init
}

# start_servers DATA: both, as a first run starts them, until both say that they are well.
start_servers() {
    start auth-server "$bin/auth-server" --config "$1/auth.toml"
    start registry-server "$bin/registry-server" --config "$1/registry.toml"
    wait_for 30 "auth-server to be healthy" "$bin/auth-server" --config "$1/auth.toml" health
    wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$1/registry.toml" health
}

stop_servers() {
    stop registry-server || fail "registry-server ended with $? on SIGTERM"
    stop auth-server || fail "auth-server ended with $? on SIGTERM"
    ok "both servers stop cleanly when told to"
}

# add_user NAME PASSWORD GRANT
add_user() { printf '%s\n' "$2" | ctl user add "$1" --password-stdin --grant "$3"; }

# ---------------------------------------------------------------- the checks, in the order of a first evening

trust_is_needed() {
    refused "docker refuses the server while its CA is not in certs.d" 'x509|certificate' \
        sign_in "$registry" andrew "$andrew_password"
    trust "$registry" "$certs/ca.pem"
}

login_is_needed() {
    docker tag greeter "$image:1"
    docker tag greeter "$public_image:1"
    refused "push without login" "$denied" docker push "$image:1"
    refused "pull without login" "$denied" docker pull "$image:1"
    refused "wrong password, anonymous pull off" "$denied" sign_in "$registry" andrew wrong
    refused "unknown user" "$denied" sign_in "$registry" nobody "$andrew_password"
    succeeds "anonymous is granted pull of public/**" ctl grant anonymous 'public/**:pull'
    refused "wrong password, anonymous pull on" "$denied" sign_in "$registry" andrew wrong
    refused "push without login, anonymous pull on" "$denied" docker push "$public_image:1"
}

push_and_run() {
    succeeds "docker login with the right password" sign_in "$registry" andrew "$andrew_password"
    succeeds "docker push" docker push "$image:1"
    succeeds "docker push of a second image" docker push "$public_image:1"
    forget_images
    succeeds "docker run pulls the image" docker run --rm "$image:1"
    grep --quiet --fixed-strings "$greeting" <<<"$output" || fail "the container did not greet"
    ok "and it prints its greeting: $(last_line <<<"$output")"
}

reader_cannot_push() {
    succeeds "authctl user add reader, with pull only" add_user reader "$reader_password" 'team/**:pull'
    succeeds "the reader signs in" sign_in "$registry" reader "$reader_password"
    forget_images
    succeeds "the reader pulls" docker pull "$image:1"
    docker tag "$image:1" "$image:2"
    refused "the reader cannot push" "$denied" docker push "$image:2"
}

# token USER PASSWORD SCOPE, as a client would get it.
token() {
    curl --silent --fail --cacert "$certs/ca.pem" --user "$1:$2" --get --data-urlencode service=berth \
        --data-urlencode "scope=$3" "https://$registry/token" | jq --raw-output .token
}

# upload_status TOKEN: the HTTP status of beginning an upload.
upload_status() {
    curl --silent --output /dev/null --write-out '%{http_code}' --cacert "$certs/ca.pem" --request POST \
        --header "Authorization: Bearer $1" "https://$registry/v2/team/hello/blobs/uploads/"
}

upload_is_refused() { [[ $(upload_status "$1") == 401 ]]; }

revoked_right_is_gone() {
    succeeds "authctl user add carol, with push" add_user carol "$carol_password" 'team/**:push'
    succeeds "carol signs in" sign_in "$registry" carol "$carol_password"
    docker tag "$image:1" "$image:3"
    succeeds "carol pushes" docker push "$image:3"
    local live
    live=$(token carol "$carol_password" repository:team/hello:pull,push)
    [[ $(upload_status "$live") == 202 ]] || fail "carol's token should begin an upload"
    succeeds "authctl revoke carol's push" ctl revoke carol 'team/**:push'
    docker tag "$image:1" "$image:4"
    refused "a new push is refused" "$denied" docker push "$image:4"
    local before=$SECONDS
    wait_for 10 "carol's live token to be void" upload_is_refused "$live"
    ok "the token that carol already had is void within $((SECONDS - before + 1)) s"
}

logout_signs_out() {
    succeeds "docker logout" docker logout "$registry"
    forget_images
    refused "pull after logout" "$denied" docker pull "$image:1"
    succeeds "pull of a public image without login" docker pull "$public_image:1"
}

restart_keeps_everything() {
    stop_servers
    start_servers "$data"
    succeeds "after a restart the login still works" sign_in "$registry" andrew "$andrew_password"
    forget_images
    succeeds "and the image is still there" docker pull "$image:1"
}

# no_secrets_in LOG...: neither a password, nor its Basic form, nor a token's first part.
no_secrets_in() {
    local secret
    for secret in "$andrew_password" "$reader_password" "$carol_password" \
        "$(printf 'andrew:%s' "$andrew_password" | base64 --wrap 0)" eyJ; do
        ! grep --fixed-strings --line-number -e "$secret" "$@" || return 1
    done
}

# ---------------------------------------------------------------- behind nginx

# Takes over an htpasswd file and a certificate of the user's own, with nginx on port 443 (the sandbox's own).
behind_nginx() {
    data=$scratch/nginx/data
    mkdir -p "$scratch/nginx/certs" "$scratch/nginx/temp"
    cp "$certs/server.pem" "$certs/server.key" "$scratch/nginx/certs/"
    printf '%s' "$andrew_password" | htpasswd -iBc "$scratch/nginx/htpasswd" andrew 2>/dev/null
    succeeds "authctl init takes over an htpasswd file" init_behind_nginx
    leave_tls_to_nginx
    start_servers "$data"
    start_nginx
    trust "$host" "$certs/ca.pem"
    refused "behind nginx: wrong password" "$denied" sign_in "$host" andrew wrong
    succeeds "behind nginx: docker login with the password of the old htpasswd file" \
        sign_in "$host" andrew "$andrew_password"
    docker tag "$image:1" "$host/team/hello:1"
    succeeds "behind nginx: docker push" docker push "$host/team/hello:1"
    forget_images
    succeeds "behind nginx: docker pull" docker pull "$host/team/hello:1"
    logs_name_clients
    succeeds "behind nginx: docker logout" docker logout "$host"
    refused "behind nginx: pull after logout" "$denied" docker pull "$host/team/hello:1"
    stop nginx || true
    stop_servers
}

# docker and curl come from $host_address; only nginx's connections to the registry come from 127.0.0.1.
logs_name_clients() {
    local log=$scratch/logs/registry-server.log
    grep --quiet "client=$host_address" "$log" || fail "the registry's log names no client"
    ! grep --quiet 'client=127\.0\.0\.1' "$log" || fail "the registry's log names nginx in place of its clients"
    ok "behind nginx: the registry's log names the client's address"
}

init_behind_nginx() {
    env --unset BERTH_USER --unset BERTH_PASSWORD BERTH_DATA="$data" BERTH_CERTS="$scratch/nginx/certs" \
        "$bin/authctl" init --host "$host" --port 443 --listen 127.0.0.1:5000 --no-user \
        --htpasswd "$scratch/nginx/htpasswd"
}

# The edit of registry.toml that berth.conf asks for: no [tls], and nginx's address trusted.
leave_tls_to_nginx() {
    awk '/^\[/ { in_tls = ($0 ~ /^\[tls\]/) }
         in_tls || /^trusted_proxies/ { next }
         { print }
         /^listen/ { print "trusted_proxies = [\"127.0.0.1/32\"]" }' \
        "$data/registry.toml" >"$scratch/registry.toml"
    cp "$scratch/registry.toml" "$data/registry.toml"
}

start_nginx() {
    sed -e "s|/etc/ssl/berth/|$scratch/nginx/certs/|" "$root/deploy/nginx/berth.conf" >"$scratch/nginx/berth.conf"
    {
        printf 'user root; daemon off; error_log stderr; pid %s;\n' "$scratch/nginx/pid"
        printf 'events {}\nhttp {\n    access_log off;\n'
        local kind
        for kind in client_body proxy fastcgi uwsgi scgi; do
            printf '    %s_temp_path %s;\n' "$kind" "$scratch/nginx/temp/$kind"
        done
        printf '    include %s;\n}\n' "$scratch/nginx/berth.conf"
    } >"$scratch/nginx/nginx.conf"
    start nginx nginx -e stderr -p "$scratch/nginx" -c "$scratch/nginx/nginx.conf"
    wait_for 10 "nginx to answer" curl --silent --cacert "$certs/ca.pem" "https://$host/v2/"
}

# ----------------------------------------------------------------

start_dockerd
make_greeter greeter
succeeds "authctl init makes configuration, keys and certificate for $host" init
start_servers "$data"
trust_is_needed
login_is_needed
push_and_run
reader_cannot_push
revoked_right_is_gone
logout_signs_out
restart_keeps_everything
stop_servers
behind_nginx
succeeds "no password and no token stands in the servers' logs" \
    no_secrets_in "$scratch/logs/auth-server.log" "$scratch/logs/registry-server.log"

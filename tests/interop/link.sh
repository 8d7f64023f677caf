#!/usr/bin/env bash
# A registry-server that has of auth-server's machine what `authctl link init` says, and nothing else: it asks over the
# link. What is typed here stands in docs/OPERATING.md.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

prepare() {
    need curl curl
    need jq jq
    need openssl openssl
    need_binaries
}

enter_sandbox prepare

# shellcheck source=tests/interop/stack.sh
. "$root/tests/interop/stack.sh"

there=$scratch/another-machine
there() { "$bin/registry-server" --config "$there/registry.toml" "$@"; }

# The certificate that clients see, the two files of the link, and the settings without the socket.
install_there() {
    install -d -m 0700 "$there"
    install -m 0600 "$certs/server.pem" "$certs/server.key" "$data/ca.pem" "$data/secret" "$there"
    sed -e '/^auth_socket/d' -e "s|^certificate = .*|certificate = \"server.pem\"|" -e "s|^key = .*|key = \"server.key\"|" \
        "$data/registry.toml" >"$there/registry.toml"
    cat "$scratch/link.toml" >>"$there/registry.toml"
}

is_told() { [[ $(there health 2>&1 || true) == *"refuses the link's secret"* ]]; }

sign_in_is() {
    local status
    status=$(curl --silent --output /dev/null --write-out '%{http_code}' --cacert "$certs/ca.pem" \
        --user "andrew:$andrew_password" "https://$registry/token?service=berth")
    [[ $status == "$1" ]]
}

without_secret() {
    curl --silent --include --cacert "$data/ca.pem" "$@" "https://127.0.0.1:$link_port/revocations"
}

# ----------------------------------------------------------------

succeeds "authctl init" init_berth
refused "a rotation before there is a link" 'auth.toml has no \[link\]' ctl link rotate
says "authctl link init --dry-run" 0 'would make' ctl link init --host 127.0.0.1 --dry-run
succeeds "authctl link init" link_up
refused "a second authctl link init" 'has what the link needs already' ctl link init --host 127.0.0.1
start auth-server "$bin/auth-server" --config "$data/auth.toml"
wait_for 30 "auth-server to be healthy" "$bin/auth-server" --config "$data/auth.toml" health
install_there
start registry-server "$bin/registry-server" --config "$there/registry.toml"
wait_for 30 "registry-server to be healthy" there health
ctl grant andrew 'team/app:push' >/dev/null
succeeds "sign-in and a look over the link" sign_in_is 200
refused "a wrong password over the link" '401' curl --silent --show-error --fail --cacert "$certs/ca.pem" \
    --user andrew:wrong "https://$registry/token?service=berth"

says "the link without the secret" 0 'HTTP/1.1 401' without_secret
says "the link with a wrong secret" 0 'HTTP/1.1 401' without_secret --header "X-Berth-Link: $(head -c 32 /dev/urandom | basenc --base64url --wrap 0 | tr --delete '=')"
says "the link with the secret" 0 'HTTP/1.1 200' without_secret --header "X-Berth-Link: $(cat "$data/secret")"
refused "TLS 1.2 on the link" 'alert|version' openssl s_client -connect "127.0.0.1:$link_port" -tls1_2 </dev/null
grep --quiet 'limit="link.secret_file" client=127.0.0.1' "$scratch/logs/auth-server.log" || fail "refusals are logged with the address"
ok "refusals are logged with the address"

says "authctl link rotate" 0 'holds two secrets' ctl link rotate
succeeds "the old secret is taken still" sign_in_is 200
install -m 0600 "$data/auth/link/secret" "$there/secret"
says "authctl link rotate --finish" 0 'holds the new secret alone' ctl link rotate --finish
succeeds "the new secret is taken" sign_in_is 200
says "the audit knows" 0 'link.rotate' ctl audit --event 'link.*'

head -c 32 /dev/urandom | basenc --base64url --wrap 0 | tr --delete '=' >"$there/secret"
wait_for 10 "readiness to say that the secret is wrong" is_told
ok "a wrong secret is told by registry-server health"
succeeds "and is no wrong password" sign_in_is 503
install -m 0600 "$data/auth/link/secret" "$there/secret"
wait_for 10 "registry-server to be healthy again" there health
stop auth-server
succeeds "sign-in waits while auth-server is away" sign_in_is 503
succeeds "the registry stays ready" there health
start auth-server "$bin/auth-server" --config "$data/auth.toml"
wait_for 30 "sign-in to work again" sign_in_is 200
ok "sign-in works when it is back"

for line in 'url = "http://127.0.0.1:5002"' 'url = "https://127.0.0.1/path"'; do
    sed "s|^url = .*|$line|" "$there/registry.toml" >"$there/wrong.toml"
    refused "$line" 'is not where an auth-server is' "$bin/registry-server" --config "$there/wrong.toml"
done
sed 's|^ca = .*|ca = "nothing.pem"|' "$there/registry.toml" >"$there/wrong.toml"
stop registry-server
refused "a CA that is not there" 'link.ca: .*nothing.pem' "$bin/registry-server" --config "$there/wrong.toml"
sed 's|^secret_file = .*|secret_file = "server.pem"|' "$there/registry.toml" >"$there/wrong.toml"
refused "a secret that is none" 'link.secret_file: .*server.pem does not hold' "$bin/registry-server" --config "$there/wrong.toml"

#!/usr/bin/env bash
# auth-server in front of registries that are not Berth's: Debian's docker-registry 2.8 and distribution v3.
# The one verifies Berth's tokens by the certificates that `authctl key export` writes, the other by the key set of
# auth-server's /keys: distribution 3.0 computes the ids of keys in certificates from the curve instead of the key.
# shellcheck source=tests/interop/stack.sh
. "$(dirname "$0")/stack.sh"
# shellcheck source=tests/interop/go-clients.sh
. "$(dirname "$0")/go-clients.sh"

prepare() {
    need_docker
    need_static_compiler
    need docker-registry docker-registry
    need_binaries
    go_tool github.com/distribution/distribution/v3/cmd/registry@v3.0.0
}

enter_sandbox prepare

auth_port=$(free_port)
stock_port=$(free_port)
stock=$host:$stock_port

# configure_auth KEY_IDS: a public listener for the other registry, and the key ids that it understands.
configure_auth() {
    sed -i -e 's/^services = .*/services = ["berth", "stock"]/' -e '/^key_ids/d' -e '/^\[public\]/,$d' "$data/auth.toml"
    sed -i -e "1i key_ids = \"$1\"" "$data/auth.toml"
    printf '[public]\nlisten = "0.0.0.0:%s"\ncertificate = "%s"\nkey = "%s"\n' \
        "$auth_port" "$certs/server.pem" "$certs/server.key" >>"$data/auth.toml"
}

export_certificates() { ctl key export >"$scratch/keys"; }

fetch_key_set() {
    curl --silent --show-error --fail --cacert "$certs/ca.pem" --output "$scratch/keys" "https://$host:$auth_port/keys"
}

# configure_stock NAME SETTING: SETTING is what the registry calls the file with the keys.
configure_stock() {
    cat >"$scratch/stock.yml" <<YML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $scratch/stock-$1}}
http: {addr: "0.0.0.0:$stock_port", tls: {certificate: $certs/server.pem, key: $certs/server.key}}
auth:
  token:
    realm: https://$host:$auth_port/token
    service: stock
    issuer: berth
    $2: $scratch/keys
YML
}

# through NAME KEY_IDS GET_KEYS SETTING COMMAND: the main job through one of them.
through() {
    local name=$1 image=$stock/team/hello
    configure_auth "$2"
    start auth-server "$bin/auth-server" --config "$data/auth.toml"
    wait_for 30 "auth-server to be healthy" "$bin/auth-server" --config "$data/auth.toml" health
    succeeds "$name: its keys, by $3" "$3"
    configure_stock "$name" "$4"
    start "$name" "$5" serve "$scratch/stock.yml"
    wait_for 30 "$name to answer" curl --silent --cacert "$certs/ca.pem" --output /dev/null "https://$stock/v2/"
    docker tag greeter "$image:1"
    refused "$name: push without login" "$denied" docker push "$image:1"
    refused "$name: wrong password" "$denied" sign_in "$stock" andrew wrong
    succeeds "$name: login" sign_in "$stock" andrew "$andrew_password"
    succeeds "$name: push" docker push "$image:1"
    forget_images
    succeeds "$name: pull" docker pull "$image:1"
    succeeds "$name: login of a user who may pull only" sign_in "$stock" reader "$reader_password"
    docker tag "$image:1" "$image:2"
    refused "$name: and may not push" "$denied" docker push "$image:2"
    docker logout "$stock" >/dev/null
    docker tag "$image:1" greeter
    stop "$name" || true
    stop auth-server || true
}

# ----------------------------------------------------------------

start_dockerd
make_greeter greeter
succeeds "authctl init" init_berth
add_user reader "$reader_password" 'team/**:pull'
trust "$stock" "$certs/ca.pem"
trust "$host:$auth_port" "$certs/ca.pem"
through docker-registry-2.8 libtrust export_certificates rootcertbundle docker-registry
through distribution-3.0 thumbprint fetch_key_set jwks "$tools/registry"

# taken NAME: what the registry stored, by Berth.
taken() {
    local config=$scratch/taken-$1.toml
    sed -e "s|^data = .*|data = \"$scratch/taken-$1\"|" "$data/registry.toml" >"$config"
    succeeds "$1: import of its store" "$bin/registry-server" --config "$config" import --verify "$scratch/stock-$1"
    [[ $output == *"1 repository: 1 manifest, 1 tag"* ]] || fail "import: $output"
    succeeds "$1: everything has its digest" "$bin/registry-server" --config "$config" verify
}

taken docker-registry-2.8
taken distribution-3.0

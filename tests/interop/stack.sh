# shellcheck shell=bash
# Sourced by the scripts for the clients: Berth over TLS in the sandbox, with the same users for all of them.
# It brings lib.sh and matrix.sh along.

# shellcheck source=tests/interop/lib.sh
declare -F enter_sandbox >/dev/null || . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/interop/matrix.sh
declare -F finish_matrix >/dev/null || . "$(dirname "${BASH_SOURCE[0]}")/matrix.sh"

port=$(free_port)
registry=$host:$port
data=$scratch/data
certs=$scratch/certs
registry_log=$scratch/logs/registry-server.log
# As a user would choose them: with characters that a careless parser trips over.
andrew_password='pä:ss wörd: "€"'
reader_password='reader pass %41+&'
# shellcheck disable=SC2034  # for the scripts that source this
pusher_password='pushers pass £'
# What clients say when the registry refuses them. The figures are not to be found in a port.
denied='unauthorized|denied|forbidden|authentication required|invalid username/password|\b40[13]\b'

ctl() { "$bin/authctl" --config "$data/auth.toml" "$@"; }

# start_berth: andrew may do everything, the reader may pull team/**, the pusher may push to desk/** alone,
# and anybody may pull public/**.
start_berth() {
    succeeds "authctl init" init_berth
    ${after_init:+"$after_init"}
    start auth-server "$bin/auth-server" --config "$data/auth.toml"
    start registry-server "$bin/registry-server" --config "$data/registry.toml"
    wait_for 30 "auth-server to be healthy" "$bin/auth-server" --config "$data/auth.toml" health
    wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
    add_user reader "$reader_password" 'team/**:pull'
    add_user pusher "$pusher_password" 'desk/**:push'
    anonymous_pull_on
    note "Berth serves $registry"
}

init_berth() {
    BERTH_DATA=$data BERTH_CERTS=$certs BERTH_HOST=$host BERTH_PORT=$port \
        BERTH_USER=andrew BERTH_PASSWORD=$andrew_password "$bin/authctl" init
}

# add_user NAME PASSWORD GRANT
add_user() { printf '%s\n' "$2" | ctl user add "$1" --password-stdin --grant "$3" >/dev/null; }

anonymous_pull_on() { ctl grant anonymous 'public/**:pull' >/dev/null; }
anonymous_pull_off() { ctl revoke anonymous 'public/**:pull' >/dev/null; }

# ---------------------------------------------------------------- the link

# link_up: auth-server, which is not started yet, is to answer on a link, by the table that authctl prints for it. The
# one for registry-servers goes to $scratch/link.toml, and the files that it names into $data.
link_port=$(free_port)
link_host=127.0.0.1
link_up() {
    ctl link init --host "$link_host" >"$scratch/link.txt" || return
    link_table 1 | sed "s/^listen = .*/listen = \"127.0.0.1:$link_port\"/" >>"$data/auth.toml"
    link_table 2 | sed "s/:5002/:$link_port/" >"$scratch/link.toml"
    install -m 0600 "$data/auth/link/ca.pem" "$data/auth/link/secret" "$data"
}

# The first or the second table of what `authctl link init` printed.
link_table() {
    awk -v wanted="$1" '/^\[link\]/ { number++; inside = 1; print "" } /^$/ { inside = 0 } inside && number == wanted' \
        "$scratch/link.txt"
}

# ---------------------------------------------------------------- trust in Berth's CA

# trust_everywhere: puts the CA where docker, podman and its kin, containerd and programs in Go look.
trust_everywhere() {
    trust "$registry" "$certs/ca.pem"
    trust_containers
    trust_containerd
    trust_go
}

# For podman, buildah and skopeo.
trust_containers() { install -D -m 0644 "$certs/ca.pem" "/etc/containers/certs.d/$registry/ca.crt"; }

# For containerd with config_path = "/etc/containerd/certs.d", as `authctl init` says it. A hosts.toml whose `ca` stands
# in the table of the host alone makes "certificate signed by unknown authority" out of a tag that is not there.
trust_containerd() { install -D -m 0644 "$certs/ca.pem" "/etc/containerd/certs.d/$registry/ca.crt"; }

# For crane, oras, regctl, helm and other programs in Go.
trust_go() { export SSL_CERT_FILE=$certs/ca.pem; }

# ---------------------------------------------------------------- checks that every client takes

# logins_are_checked CLIENT LOGIN...: LOGIN is called with a user and a password. Andrew is signed in afterwards.
# With anonymous pull on, a registry could take a wrong password for no password, and let it pass.
logins_are_checked() {
    local client=$1
    shift
    anonymous_pull_off
    refused "$client: wrong password, anonymous pull off" "$denied" "$@" andrew wrong
    refused "$client: unknown user" "$denied" "$@" nobody "$andrew_password"
    anonymous_pull_on
    refused "$client: wrong password, anonymous pull on" "$denied" "$@" andrew wrong
    succeeds "$client: login of a user who may pull only" "$@" reader "$reader_password"
    shown "$client" login
    succeeds "$client: login with the password $andrew_password" "$@" andrew "$andrew_password"
    shown "$client" password
}

# ---------------------------------------------------------------- what the registry saw

# log_has PATTERN: whether a line of the registry's log matches the extended regular expression.
log_has() { grep --quiet --extended-regexp -e "$1" "$registry_log"; }

# log_mark and log_since PATTERN: the same for the lines after the mark only.
log_mark() { log_marked=$(wc -l <"$registry_log"); }
log_since() { (($(count_since "$1") > 0)); }
count_since() { tail -n "+$((log_marked + 1))" "$registry_log" | grep --count --extended-regexp -e "$1" || true; }

# curl_berth USER PASSWORD SCOPE CURL-ARGUMENTS...: a request with a token, to look at what a client left behind.
curl_berth() {
    local user=$1 password=$2 scope=$3 token
    shift 3
    token=$(curl --silent --fail --cacert "$certs/ca.pem" --user "$user:$password" --get \
        --data-urlencode service=berth --data-urlencode "scope=$scope" "https://$registry/token" |
        jq --raw-output .token)
    curl --silent --cacert "$certs/ca.pem" --header "Authorization: Bearer $token" "$@"
}

# mounted REPOSITORY and uploaded REPOSITORY: whether an upload that began since the mark was a mount, or was none.
# A registry answers a request to mount with 201 when it did, and with 202 when the client has to send the bytes.
mounted() { (($(mounts "$1") > 0)); }
uploaded() { (($(uploads "$1") > 0)); }

# mounts REPOSITORY and uploads REPOSITORY: how many.
mounts() { count_since "POST /v2/$1/blobs/uploads/ .*status=201"; }
uploads() { count_since "POST /v2/$1/blobs/uploads/ .*status=202"; }

# ---------------------------------------------------------------- images made without a client

# make_layout DIRECTORY WORDS: an OCI image layout with an index for amd64 and arm64, tagged `many`,
# and the amd64 image alone, tagged `one`. Its layers hold the words and nothing else, so other words are other blobs.
make_layout() {
    local dir=$1 arch images=()
    mkdir -p "$dir/blobs/sha256"
    for arch in amd64 arm64; do
        images+=("$(layout_image "$dir" "$2" "$arch")")
    done
    local index=application/vnd.oci.image.index.v1+json
    jq --null-input --compact-output --arg type $index '{schemaVersion: 2, mediaType: $type, manifests: $ARGS.positional}' \
        --jsonargs "${images[@]}" >"$dir/many"
    printf '{"imageLayoutVersion": "1.0.0"}\n' >"$dir/oci-layout"
    jq --null-input --argjson many "$(layout_blob "$dir" $index <"$dir/many")" --argjson one "${images[0]}" \
        'def tag(name): . + {annotations: {"org.opencontainers.image.ref.name": name}};
         {schemaVersion: 2, manifests: [($many | tag("many")), ($one | del(.platform) | tag("one"))]}' >"$dir/index.json"
    rm "$dir/many"
}

# layout_image DIRECTORY WORDS ARCHITECTURE: prints the image's descriptor.
layout_image() {
    local dir=$1 words=$2 arch=$3 work
    work=$(mktemp -d -p "$scratch")
    printf '%s (%s)\n' "$words" "$arch" >"$work/words"
    tar --create --file "$work/layer.tar" --mtime @0 --owner 0 --group 0 --numeric-owner --directory "$work" words
    local type=application/vnd.oci.image layer config
    layer=$(gzip --no-name --stdout "$work/layer.tar" | layout_blob "$dir" $type.layer.v1.tar+gzip)
    config=$(jq --null-input --arg arch "$arch" --arg diff "sha256:$(sha256sum <"$work/layer.tar" | cut -d ' ' -f 1)" \
        '{architecture: $arch, os: "linux", config: {}, rootfs: {type: "layers", diff_ids: [$diff]}}' |
        layout_blob "$dir" $type.config.v1+json)
    jq --null-input --arg type $type.manifest.v1+json --argjson config "$config" --argjson layer "$layer" \
        '{schemaVersion: 2, mediaType: $type, config: $config, layers: [$layer]}' |
        layout_blob "$dir" $type.manifest.v1+json |
        jq --compact-output --arg arch "$arch" '. + {platform: {architecture: $arch, os: "linux"}}'
}

# layout_blob DIRECTORY TYPE: keeps what comes in by stdin, and prints its descriptor.
layout_blob() {
    local file=$1/blobs/incoming.$BASHPID digest
    cat >"$file"
    digest=$(sha256sum <"$file" | cut -d ' ' -f 1)
    jq --null-input --compact-output --arg type "$2" --arg digest "sha256:$digest" --argjson size "$(stat -c %s "$file")" \
        '{mediaType: $type, digest: $digest, size: $size}'
    mv "$file" "$1/blobs/sha256/$digest"
}

# layout_digest DIRECTORY TAG
layout_digest() {
    jq --raw-output --arg tag "$2" \
        '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == $tag) | .digest' "$1/index.json"
}

#!/usr/bin/env bash
# Uploads that outlive their token: with tokens of 60 s and a line so slow that a layer takes over 150 s,
# by raw HTTP in one piece and in chunks, by docker and by skopeo, all at once. It takes three minutes.
# A right that is taken away meanwhile ends the upload.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

token_life=60
# A token is honoured for so long after it has expired, since clocks differ.
leeway=60
seconds_min=150
# What the line carries for each connection.
line_kib=100
blob_kib=$((line_kib * (seconds_min + 10)))

prepare() {
    need_docker
    need skopeo skopeo
    need curl curl
    need jq jq
    need nginx nginx
    need_nginx_stream
    need_binaries
}

nginx_stream=/usr/lib/nginx/modules/ngx_stream_module.so
need_nginx_stream() {
    [[ -e $nginx_stream ]] && return
    note "installing libnginx-mod-stream"
    apt_install libnginx-mod-stream || true
    [[ -e $nginx_stream ]] || skip "nginx's stream module is missing: apt-get install libnginx-mod-stream"
}

enter_sandbox prepare

# shellcheck source=tests/interop/stack.sh
. "$root/tests/interop/stack.sh"

carol_password='carols pass £'

# ---------------------------------------------------------------- Berth at the end of a slow line

# Clients see the port of the line; Berth listens on another, with the same certificate.
shorten_tokens() {
    init_berth >/dev/null
    sed -i "s/^token_life_secs = .*/token_life_secs = $token_life/" "$data/auth.toml"
    sed -i 's/^listen = .*/listen = "127.0.0.1:5000"/' "$data/registry.toml"
}

start_line() {
    mkdir "$scratch/line"
    cat >"$scratch/line/nginx.conf" <<CONF
load_module $nginx_stream;
user root;
daemon off;
error_log stderr;
pid $scratch/line/pid;
events {}
stream {
    server {
        listen $host_address:$port;
        proxy_pass 127.0.0.1:5000;
        proxy_timeout 10m;
        proxy_upload_rate ${line_kib}k;
    }
}
CONF
    start line nginx -e stderr -p "$scratch/line" -c "$scratch/line/nginx.conf"
    wait_for 10 "the slow line" curl --silent --fail --cacert "$certs/ca.pem" "https://$registry/healthz"
}


# ends WHAT NAME: waits for what was started under the name; it must end well. Its log is shown if it does not.
ends() {
    local status=0
    wait "${pid_of[$2]}" || status=$?
    unset "pid_of[$2]"
    ((status == 0)) || fail "$1"
    ok "$1"
}

# ---------------------------------------------------------------- raw HTTP

request() { curl --silent --show-error --fail --cacert "$certs/ca.pem" "$@"; }

# token USER PASSWORD REPOSITORY
token() {
    request --user "$1:$2" --get --data-urlencode service=berth --data-urlencode "scope=repository:$3:pull,push" \
        "https://$registry/token" | jq --raw-output .token
}

# begin TOKEN REPOSITORY: prints where the upload goes on.
begin() {
    request --request POST --dump-header - --header "Authorization: Bearer $1" \
        "https://$registry/v2/$2/blobs/uploads/" | tr --delete '\r' | sed --quiet "s|^[Ll]ocation: |https://$registry|p"
}

# append TOKEN LOCATION FILE. Over HTTP/2 curl turns in circles while the line is busy.
append() {
    request --http1.1 --request PATCH --output /dev/null --header "Authorization: Bearer $1" \
        --header 'Content-Type: application/octet-stream' --upload-file "$3" "$2"
}

# answers STATUS TOKEN CURL-ARGUMENTS...
answers() {
    [[ $(curl --silent --output /dev/null --write-out '%{http_code}' --cacert "$certs/ca.pem" \
        --header "Authorization: Bearer $2" "${@:3}") == "$1" ]]
}

# push_raw REPOSITORY PIECES: one token for all requests of the upload.
push_raw() {
    local dir=$scratch/raw.$2 bearer location piece digest begun=$SECONDS
    mkdir "$dir"
    head -c $((blob_kib * 1024)) /dev/urandom >"$dir/blob"
    split --number "$2" "$dir/blob" "$dir/piece."
    digest=sha256:$(sha256sum "$dir/blob" | cut --delimiter ' ' --fields 1)
    bearer=$(token andrew "$andrew_password" "$1")
    location=$(begin "$bearer" "$1")
    for piece in "$dir"/piece.*; do
        append "$bearer" "$location" "$piece"
    done
    ((SECONDS - begun >= seconds_min)) || fail "the upload took $((SECONDS - begun)) s only"
    # Beyond the upload that it began, the token is worth nothing any more.
    answers 401 "$bearer" "https://$registry/v2/$1/tags/list" || fail "the token should have expired"
    answers 401 "$bearer" --request POST "https://$registry/v2/$1/blobs/uploads/" ||
        fail "a token that has expired should not begin an upload"
    request --request PUT --header "Authorization: Bearer $bearer" "$location?digest=$digest"
    bearer=$(token andrew "$andrew_password" "$1")
    request --header "Authorization: Bearer $bearer" "https://$registry/v2/$1/blobs/$digest" | cmp - "$dir/blob"
}

# ---------------------------------------------------------------- docker and skopeo

# An image with one layer that does not compress.
make_image() {
    mkdir "$scratch/image"
    head -c $((blob_kib * 1024)) /dev/urandom >"$scratch/image/layer"
    printf 'FROM scratch\nCOPY layer /\n' >"$scratch/image/Dockerfile"
    docker build --quiet --tag "$1" "$scratch/image" >/dev/null 2>&1 || fail "docker build"
}

push_with_docker() {
    sign_in "$registry" andrew "$andrew_password"
    docker push "$registry/team/docker:1"
}

push_with_skopeo() {
    local auth=$scratch/skopeo-auth.json
    printf '%s' "$andrew_password" | skopeo login --authfile "$auth" --username andrew --password-stdin "$registry"
    skopeo --insecure-policy copy --authfile "$auth" "docker-archive:$scratch/image.tar" "docker://$registry/team/skopeo:1"
}

# took_long REPOSITORY: the layer was one request that took longer than the token and the leeway together.
took_long() {
    local longest
    longest=$(grep "PATCH /v2/$1/" "$registry_log" | grep --only-matching --perl-regexp ' status=202 .*duration_ms=\K[0-9]+' |
        sort --numeric-sort | tail -n 1)
    ((${longest:-0} >= seconds_min * 1000)) || fail "$1: the longest request took ${longest:-no} ms"
    ok "$1: its layer took $((longest / 1000)) s"
}

# ---------------------------------------------------------------- a right that is taken away

# Carol sends a little every few seconds, on with a token that has expired, until her right is gone.
# Then neither that token goes on nor a new one; and andrew's never does: the upload is hers.
revoke_carol() {
    local old new location begun=$SECONDS
    printf 'some bytes' >"$scratch/bytes"
    old=$(token carol "$carol_password" team/carol)
    location=$(begin "$old" team/carol)
    while ((SECONDS - begun < token_life + leeway + 5)); do
        append "$old" "$location" "$scratch/bytes"
        sleep 5
    done
    answers 401 "$old" "https://$registry/v2/team/carol/tags/list" || fail "carol's token should have expired"
    append "$old" "$location" "$scratch/bytes"
    append_answers 404 "$(token andrew "$andrew_password" team/carol)" "$location" || fail "andrew goes on with carol's upload"
    ctl revoke carol 'team/**:push'
    wait_for 10 "carol's upload to be refused" append_answers 401 "$old" "$location"
    new=$(token carol "$carol_password" team/carol)
    append_answers 401 "$new" "$location" || fail "carol goes on with a new token"
    answers 401 "$old" --request PUT "$location?digest=sha256:$(sha256sum </dev/null | cut --delimiter ' ' --fields 1)" ||
        fail "carol's upload should not be committed"
}

append_answers() {
    answers "$1" "$2" --request PATCH --header 'Content-Type: application/octet-stream' --upload-file "$scratch/bytes" "$3"
}

# ----------------------------------------------------------------

shorten_tokens
start_berth
start_line
trust_everywhere
add_user carol "$carol_password" 'team/**:push'
start_dockerd
make_image "$registry/team/docker:1"
docker save --output "$scratch/image.tar" "$registry/team/docker:1"
note "uploads of $blob_kib KiB over a line of $line_kib KiB/s; tokens hold for $token_life s, and $leeway s of leeway"
start raw push_raw team/raw 1
start raw-chunks push_raw team/raw-chunks 16
start docker push_with_docker
start skopeo push_with_skopeo
start carol revoke_carol
ends "carol's upload goes on with an expired token, and not after her right is taken away" carol
ends "raw HTTP: an upload in one piece, its token expired meanwhile" raw
took_long team/raw
ends "raw HTTP: an upload in 16 chunks, all with the token that expired meanwhile" raw-chunks
ends "docker push" docker
took_long team/docker
ends "skopeo copy" skopeo
took_long team/skopeo
docker image rm --force "$registry/team/docker:1" >/dev/null
succeeds "docker pulls what docker pushed" docker pull "$registry/team/docker:1"
succeeds "docker pulls what skopeo pushed" docker pull "$registry/team/skopeo:1"

#!/usr/bin/env bash
# The move from registry:2 behind nginx with an htpasswd file: docker fills Debian's docker-registry, some of the store is
# damaged, Berth takes over users and store, and docker goes on under the same name without a new login.
# At the end a store of many small blobs is taken, and its speed is printed: 20,000 of them, or 100,000 in `make test-full`.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

prepare() {
    need_docker
    need_static_compiler
    need curl curl
    need jq jq
    need python3 python3
    need setpriv util-linux
    need nginx nginx
    need htpasswd apache2-utils
    need docker-registry docker-registry
    need_binaries
}

enter_sandbox prepare

port=$(free_port)
backend=$(free_port)
registry=$host:$port
data=$scratch/data
certs=$scratch/certs
old=$scratch/old
store=$old/docker/registry/v2
password='andrews:correct horse, "battery"'

# ---------------------------------------------------------------- the old registry

# The certificate is one that the user had before Berth.
make_certificate() {
    BERTH_DATA=$scratch/unused BERTH_CERTS=$scratch/ca BERTH_HOST=$host BERTH_PORT=$port \
        "$bin/authctl" init --no-user >/dev/null
    mkdir -p "$certs"
    cp "$scratch/ca/server.pem" "$scratch/ca/server.key" "$certs/"
}

start_old_registry() {
    cat >"$scratch/old.yml" <<YML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $old}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$backend", relativeurls: true}
YML
    start old-registry docker-registry serve "$scratch/old.yml"
    wait_for 30 "the old registry to answer" curl --silent --fail "http://127.0.0.1:$backend/v2/"
}

start_nginx() {
    mkdir -p "$scratch/nginx"
    cat >"$scratch/nginx.conf" <<CONF
user root; daemon off; error_log stderr; pid $scratch/nginx/pid;
events {}
http {
    access_log off; client_body_temp_path $scratch/nginx/b; proxy_temp_path $scratch/nginx/p;
    fastcgi_temp_path $scratch/nginx/f; uwsgi_temp_path $scratch/nginx/u; scgi_temp_path $scratch/nginx/s;
    server {
        listen $host_address:$port ssl;
        ssl_certificate $certs/server.pem; ssl_certificate_key $certs/server.key;
        client_max_body_size 0;
        location /v2/ {
            auth_basic "registry"; auth_basic_user_file $scratch/htpasswd;
            proxy_pass http://127.0.0.1:$backend; proxy_set_header Host \$http_host;
            proxy_set_header X-Forwarded-Proto \$scheme;
        }
    }
}
CONF
    start nginx nginx -e stderr -p "$scratch/nginx" -c "$scratch/nginx.conf"
    wait_for 10 "nginx to answer" curl --silent --cacert "$scratch/ca/ca.pem" "https://$registry/v2/"
}

# push NAME:TAG WORDS: an image with a layer of its own.
push() {
    mkdir -p "$scratch/image"
    printf '%s\n' "$2" >"$scratch/image/words"
    printf 'FROM greeter\nCOPY words /words\n' >"$scratch/image/Dockerfile"
    docker build --quiet --tag "$registry/$1" "$scratch/image" >/dev/null 2>&1 || return
    docker push --quiet "$registry/$1"
}

accept=(--header "Accept: application/vnd.docker.distribution.manifest.v2+json"
    --header "Accept: application/vnd.oci.image.index.v1+json")

backend_curl() { curl --silent --show-error --fail "${accept[@]}" "$@"; }

digest_of() {
    backend_curl --head "http://127.0.0.1:$backend/v2/$1/manifests/$2" | tr -d '\r' |
        sed -n 's/^[Dd]ocker-[Cc]ontent-[Dd]igest: //p'
}

push_index() {
    local digest size arch
    digest=$(digest_of deep/er/app 1)
    size=$(stat -c %s "$(blob_file "$digest")")
    arch=$(docker version --format '{{.Server.Arch}}')
    jq --null-input --arg digest "$digest" --argjson size "$size" --arg arch "$arch" '{schemaVersion: 2,
        mediaType: "application/vnd.oci.image.index.v1+json", manifests: [{digest: $digest, size: $size,
        mediaType: "application/vnd.docker.distribution.manifest.v2+json", platform: {os: "linux", architecture: $arch}}]}' |
        curl --silent --show-error --fail --request PUT --data-binary @- \
            --header "Content-Type: application/vnd.oci.image.index.v1+json" \
            "http://127.0.0.1:$backend/v2/deep/er/app/manifests/many"
}

blob_file() { printf '%s/blobs/sha256/%s/%s/data' "$store" "${1:7:2}" "${1:7}"; }

fill() {
    succeeds "old registry: login" sign_in "$registry" andrew "$password"
    local image
    for image in hello:1 team/app:1 team/app:2 team/app:gone team/broken:1 deep/er/app:1; do
        succeeds "old registry: push of $image" push "$image" "the words of $image"
    done
    succeeds "old registry: an index" push_index
    succeeds "old registry: a deleted image" backend_curl --request DELETE \
        "http://127.0.0.1:$backend/v2/team/app/manifests/$(digest_of team/app gone)"
}

damage() {
    damaged=$(backend_curl "http://127.0.0.1:$backend/v2/team/broken/manifests/1" | jq --raw-output '.layers[-1].digest')
    : >"$(blob_file "$damaged")"
    mkdir -p "$store/repositories/team/app/_manifests/tags/crashed/current"
    : >"$store/repositories/team/app/_manifests/tags/crashed/current/link"
}

# Names, sizes, inodes and times of every file of the old store.
inventory() { find "$old" -type f -printf '%P %s %i %u %m %T@\n' | sort; }

# ---------------------------------------------------------------- the move

take_over_users() {
    env --unset BERTH_USER --unset BERTH_PASSWORD BERTH_DATA="$data" BERTH_CERTS="$certs" \
        "$bin/authctl" init --host "$host" --port "$port" --no-user --htpasswd "$scratch/htpasswd"
}

import() { "$bin/registry-server" --config "$data/registry.toml" import "$@"; }

told() {
    grep --quiet --fixed-strings -e "$1" <<<"$report" || { indent <<<"$report" && fail "the report does not say: $1"; }
    ok "the report says: $1"
}

move() {
    inventory >"$scratch/before"
    mkdir -p "$data/registry"
    # Root works in there as nobody, who has to come there.
    chmod 0711 "$scratch" "$data"
    chown nobody "$data/registry"
    local status=0
    report=$(import "$old" --verify 2>&1) || status=$?
    ((status == 1)) || { indent <<<"$report" && fail "import ended with $status"; }
    indent <<<"$report"
    told "blob $damaged has zero bytes"
    told "left behind: team/broken:1"
    told "the link is empty"
    told "left behind: team/app:crashed"
    inventory | diff "$scratch/before" - || fail "the old store was changed"
    ok "the old store is as it was: names, sizes, inodes, owners, times"
    local foreign
    foreign=$(find "$data/registry" ! -user nobody -links 1)
    [[ -z $foreign ]] || fail "not given to whom the data belongs: $foreign"
    ok "what the import made belongs to whom the data belongs"
    report=$(import "$old" 2>&1) || true
    told "0 manifests, 0 tags, 0 blobs"
}

start_berth() {
    start auth-server "$bin/auth-server" --config "$data/auth.toml"
    start registry-server "$bin/registry-server" --config "$data/registry.toml"
    wait_for 30 "auth-server to be healthy" "$bin/auth-server" --config "$data/auth.toml" health
    wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
}

goes_on() {
    forget_images
    local image
    for image in hello:1 team/app:1 team/app:2 deep/er/app:1 deep/er/app:many; do
        succeeds "Berth, without a new login: pull of $image" docker pull --quiet "$registry/$image"
        [[ $(docker run --rm "$registry/$image") == "$greeting" ]] || fail "$image does not run"
    done
    docker tag "$registry/hello:1" greeter
    succeeds "Berth, without a new login: push" push team/app:3 "new words"
    refused "Berth: a deleted image stays deleted" "not found|unknown" docker pull "$registry/team/app:gone"
    refused "Berth: a damaged image is not there" "not found|unknown" docker pull "$registry/team/broken:1"
    refused "an import beside a running server" "stop it for the time" import "$old"
    succeeds "what was damaged can be pushed again" push team/broken:1 "the words of team/broken:1"
}

# import_into DIRECTORY STORE COMMAND...: into a data directory of its own; COMMAND is put in front.
import_into() {
    local place=$1 from=$2
    shift 2
    mkdir -p "$place"
    sed -e "s|^data = .*|data = \"$place/registry\"|" "$data/registry.toml" >"$place/registry.toml"
    "$@" "$bin/registry-server" --config "$place/registry.toml" import "$from"
}

refusals() {
    local elsewhere=$scratch/elsewhere nobodys=$scratch/nobodys
    mkdir -p "$elsewhere" "$nobodys"
    mount -t tmpfs elsewhere "$elsewhere"
    refused "import onto another file system" 'add --copy' import_into "$elsewhere" "$old"
    refused "import of what is no store" 'holds no docker/registry/v2' import_into "$elsewhere" "$scratch/nginx"
    chmod 0755 "$scratch"
    chown nobody "$nobodys"
    if [[ $(</proc/sys/fs/protected_hardlinks) == 1 ]]; then
        refused "import of root's files by somebody else" 'run this as root' \
            import_into "$nobodys" "$old" setpriv --reuid nobody --clear-groups
    fi
    mkdir -p "$nobodys/registry"
    chown nobody "$nobodys/registry"
    ln -sf "$scratch/victim" "$nobodys/registry/lock"
    refused "import as root through a link that somebody else made" 'symbolic link' import_into "$nobodys" "$old"
    [[ ! -e $scratch/victim ]] || fail "root wrote through the link"
}

# Copies go elsewhere; moving gives the old store up, so it comes last.
other_ways() {
    local way
    for way in --copy --adopt; do
        mkdir -p "$scratch/way$way"
        sed -e "s|^data = .*|data = \"$scratch/way$way/registry\"|" "$data/registry.toml" >"$scratch/way$way/registry.toml"
        report=$("$bin/registry-server" --config "$scratch/way$way/registry.toml" import "$old" "$way" 2>&1) || true
        told "left behind: team/broken:1"
        succeeds "import $way: everything has its digest" \
            "$bin/registry-server" --config "$scratch/way$way/registry.toml" verify
    done
    [[ -z $(find "$store/blobs" -size +100k) ]] || fail "--adopt left layers in the old store"
    ok "import --adopt: the layers are gone from the old store"
}

# ---------------------------------------------------------------- many small blobs

many_manifests=2000
[[ -z ${BERTH_FULL:-} ]] || many_manifests=10000
many_blobs=$((many_manifests * 10))

# make_many DIRECTORY N: N manifests in 100 repositories, each with ten blobs of 1 KiB.
make_many() {
    python3 - "$1/docker/registry/v2" "$2" <<'PY'
import hashlib, json, os, sys

root = sys.argv[1]

def write(place, data):
    path = os.path.join(root, place)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)

def blob(data):
    name = hashlib.sha256(data).hexdigest()
    write(f"blobs/sha256/{name[:2]}/{name}/data", data)
    return {"mediaType": "application/octet-stream", "digest": "sha256:" + name, "size": len(data)}

for number in range(int(sys.argv[2])):
    blobs = [blob((f"{number} {at} ".encode() * 1024)[:1024]) for at in range(10)]
    manifest = blob(json.dumps({"schemaVersion": 2, "config": blobs[0], "layers": blobs[1:]}).encode())
    digest, manifests = manifest["digest"], f"repositories/many/r{number % 100}/_manifests"
    write(f"{manifests}/revisions/sha256/{digest[7:]}/link", digest.encode())
    write(f"{manifests}/tags/t{number}/current/link", digest.encode())
PY
}

objects_are_there() { (($(find "$scratch/many/data/objects" -type f | wc -l) > many_manifests)); }

many() {
    mkdir -p "$scratch/many/data"
    sed -e "s|^data = .*|data = \"$scratch/many/data\"|" "$data/registry.toml" >"$scratch/many/registry.toml"
    succeeds "a store of $many_blobs blobs" make_many "$scratch/many/old" "$many_manifests"
    start import "$bin/registry-server" --config "$scratch/many/registry.toml" import "$scratch/many/old"
    wait_for 60 "an import to be under way" objects_are_there
    kill -KILL "${pid_of[import]}"
    stop import || true
    succeeds "import of $many_blobs blobs, after one that was killed" \
        "$bin/registry-server" --config "$scratch/many/registry.toml" --json import "$scratch/many/old"
    local summary
    summary=$(tail -n 1 <<<"$output")
    [[ $(jq '.problems' <<<"$summary") == 0 ]] || fail "took: $summary"
    succeeds "all of it is there" "$bin/registry-server" --config "$scratch/many/registry.toml" verify --rate 1000
    [[ $output == "verified $many_blobs blobs and $many_manifests manifests"*" 0 damaged"* ]] || fail "$output"
    ok "$output"
    note "$(jq --raw-output '"\(.blobs) blobs in \(.millis / 1000) s: \(.blobs * 1000 / .millis | floor) blobs per second"' <<<"$summary")"
}

# ----------------------------------------------------------------

start_dockerd
make_greeter greeter
printf '%s' "$password" | htpasswd -iBc -C 10 "$scratch/htpasswd" andrew 2>/dev/null
make_certificate
trust "$registry" "$scratch/ca/ca.pem"
start_old_registry
start_nginx
fill
damage
stop nginx || true
stop old-registry || true
succeeds "authctl init takes over the htpasswd file" take_over_users
move
start_berth
goes_on
start_old_registry
succeeds "the old store still serves" \
    backend_curl --output /dev/null "http://127.0.0.1:$backend/v2/team/app/manifests/2"
stop old-registry || true
refusals
other_ways
many

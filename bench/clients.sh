#!/usr/bin/env bash
# `docker push`, `docker pull` and `skopeo copy` of an image of ten layers, at Berth, at nginx with docker-registry and at
# zot, all over TLS and in turns; and PullImage of a containerd that asks for parallel ranges, where CONTAINERD names one.
# Both daemons are the script's own, in namespaces of its own. Called by `make bench`; prints a table, and ends with 77
# where docker cannot run.
# shellcheck source=tests/interop/go-clients.sh
. "$(dirname "$0")/../tests/interop/go-clients.sh"

export LC_ALL=C
readonly ROUNDS=${BENCH_CLIENT_ROUNDS:-3} LAYERS=10 LAYER_MIB=${BENCH_LAYER_MIB:-50} RANGE_BYTES=$((8 << 20))
readonly BENCH=${CARGO_TARGET_DIR:-$root/target}/release/bench

prepare() {
    need_docker
    need skopeo skopeo
    need jq jq
    need_binaries
    mkdir -p /var/lib/containers
    [[ -z ${CONTAINERD:-} ]] || { need_go cri-pull && go_build cri-pull go -C "$root/tests/interop/cri-pull" install .; }
}

containerd_socket=$scratch/containerd.sock
hosts=/etc/containerd/certs.d
ctr=(ctr --address "$containerd_socket" --namespace k8s.io)

# The table alone is for the caller. Inside it is so already.
in_sandbox || exec 3>&1 1>&2
enter_sandbox prepare

# A function's result, in seconds, for the table. What the one before left to the system to write is written before.
timed() { # file, command...
    local file=$scratch/figures/$1 begun
    shift
    sync
    begun=$EPOCHREALTIME
    "$@" >/dev/null || fail "$*"
    awk "BEGIN { print $EPOCHREALTIME - $begun }" >>"$file"
}

# blob MEDIA-TYPE: keeps what comes in by stdin in the layout, and prints its descriptor.
blob() {
    local file=$layout/incoming digest
    cat >"$file"
    digest=$(sha256sum "$file" | cut -d ' ' -f 1)
    jq --null-input --compact-output --arg type "application/vnd.oci.image.$1" --arg digest "sha256:$digest" \
        --argjson size "$(stat -c %s "$file")" '{mediaType: $type, digest: $digest, size: $size}'
    mv "$file" "$layout/blobs/sha256/$digest"
}

# make_image: an OCI layout whose layers nobody has. They are not compressed: clients are to move bytes.
make_image() {
    local layers config manifest
    layout=$scratch/image
    rm -rf "$layout"
    mkdir -p "$layout/blobs/sha256"
    for _ in $(seq "$LAYERS"); do
        head -c "${LAYER_MIB}M" /dev/urandom >"$layout/bytes"
        tar --create --directory "$layout" bytes | blob layer.v1.tar
    done >"$layout/layers"
    rm "$layout/bytes"
    layers=$(jq --slurp --compact-output . "$layout/layers")
    config=$(jq --null-input --argjson layers "$layers" \
        '{architecture: "amd64", os: "linux", config: {}, rootfs: {type: "layers", diff_ids: [$layers[].digest]}}' |
        blob config.v1+json)
    manifest=$(jq --null-input --argjson config "$config" --argjson layers "$layers" \
        '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: $config, layers: $layers}' |
        blob manifest.v1+json)
    jq --null-input --argjson manifest "$manifest" '{schemaVersion: 2, manifests: [$manifest]}' >"$layout/index.json"
    printf '{"imageLayoutVersion": "1.0.0"}\n' >"$layout/oci-layout"
    skopeo --insecure-policy copy --quiet --dest-daemon-host "$DOCKER_HOST" "oci:$layout" docker-daemon:bench:1
}

# measure PEER
measure() {
    local registry=${registry_of[$1]} login=${login_of[$1]}
    local image=$registry/bench/app:$round copied=$registry/bench/copied:$round
    docker tag bench:1 "$image"
    timed "$1-docker-push" docker push --quiet "$image"
    docker rmi "$image" >/dev/null
    timed "$1-skopeo-push" skopeo --insecure-policy copy --quiet --preserve-digests --dest-creds "$login" \
        "oci:$layout" "docker://$copied"
    timed "$1-skopeo-pull" skopeo --insecure-policy copy --quiet --src-creds "$login" "docker://$copied" \
        "dir:$scratch/pulled"
    rm -rf "$scratch/pulled"
}

# pull PEER: of what docker has no layer of.
pull() {
    forget_images
    timed "$1-docker-pull" docker pull --quiet "${registry_of[$1]}/bench/app:$round"
}

# Kubernetes nodes pull so: containerd's transfer service, which from 2.1 on fetches one layer by several ranges.
start_containerd() {
    local snapshotter=overlayfs
    mkdir -p "$scratch/containerd" "$scratch"/overlay/{lower,upper,work,merged}
    mount -t overlay overlay -o "lowerdir=$scratch/overlay/lower,upperdir=$scratch/overlay/upper,workdir=$scratch/overlay/work" \
        "$scratch/overlay/merged" 2>/dev/null || snapshotter=native
    cat >"$scratch/containerd.toml" <<CONFIG
version = 3
root = "$scratch/containerd/root"
state = "$scratch/containerd/state"
[grpc]
  address = "$containerd_socket"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "$snapshotter"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "$hosts"
[plugins."io.containerd.transfer.v1.local"]
  config_path = "$hosts"
  concurrent_layer_fetch_buffer = $RANGE_BYTES
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/$(go env GOARCH)"
  snapshotter = "$snapshotter"
CONFIG
    start containerd "$CONTAINERD" --log-level warn --config "$scratch/containerd.toml"
    wait_for 30 "containerd" ctr --address "$containerd_socket" version
}

# pull_as_node PEER: by tag, with the user and password of an imagePullSecret. Nothing is left of it.
pull_as_node() {
    local where=${registry_of[$1]} login=${login_of[$1]}
    local image=$where/bench/copied:$round
    docker_config "$where" "${login%%:*}" "${login#*:}" >"$scratch/pull-secret.json"
    timed "$1-cri-pull" cri-pull "$containerd_socket" "$image" "$scratch/pull-secret.json"
    "${ctr[@]}" images ls --quiet | xargs --no-run-if-empty "${ctr[@]}" images rm --sync >/dev/null
    [[ -z $("${ctr[@]}" content ls --quiet) ]] || fail "content is left in containerd"
}

median() { sort -g "$scratch/figures/$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# row WHAT FIGURE: of all peers, and how many times as long each takes as Berth.
row() {
    local peer ours theirs cells=
    ours=$(median "berth-tls-$2")
    for peer in "${peers[@]}"; do
        theirs=$(median "$peer-$2")
        cells+=$(awk -v a="$ours" -v b="$theirs" 'BEGIN { printf " %.2f s (%.2f×) |", b, b / a }')
    done
    printf '| %s |%s\n' "$1" "$cells"
}

containerd_told() {
    if [[ -z ${CONTAINERD:-} ]]; then
        echo " (containerd was not measured: \`CONTAINERD\` names no program.)"
        return
    fi
    echo " containerd $("$CONTAINERD" --version | awk '{ print $3 }') fetches a layer by ranges of $((RANGE_BYTES >> 20)) MiB, three at once, and unpacks it."
}

start_peers() {
    local name base login ca words
    start peers "$BENCH" --bin "$bin" --data "$scratch" peers --host "$host" --address "$host_address" \
        berth-tls nginx-registry zot-tls
    wait_for 60 "the peers" grep '^ready$' "$scratch/logs/peers.log"
    while read -r name base login ca words; do
        [[ $base == https://* ]] || continue
        peers+=("$name") registry_of[$name]=${base#https://} login_of[$name]=$login words_of[$name]=$words
        trust "${base#https://}" "$ca"
        install -D -m 0644 "$ca" "$hosts/${base#https://}/ca.crt"
        sign_in "${base#https://}" "${login%%:*}" "${login#*:}"
    done <"$scratch/logs/peers.log"
}

# nginx's workers are somebody else.
chmod 0755 "$scratch"
mkdir "$scratch/figures" "$scratch/containers"
# skopeo reads certs.d of docker too.
mount --bind "$scratch/containers" /var/lib/containers
declare -A registry_of=() login_of=() words_of=()
peers=()
start_dockerd
start_peers
[[ -z ${CONTAINERD:-} ]] || start_containerd
order=("${peers[@]}")
for round in $(seq "$ROUNDS"); do
    make_image
    for peer in "${order[@]}"; do measure "$peer"; done
    for peer in "${order[@]}"; do pull "$peer"; done
    [[ -z ${CONTAINERD:-} ]] || for peer in "${order[@]}"; do pull_as_node "$peer"; done
    order=("${order[@]:1}" "${order[0]}")
    forget_images
    note "round $round of $ROUNDS"
done
{
    echo
    echo "An image of $LAYERS layers of $LAYER_MIB MiB of random bytes, medians of $ROUNDS, in turns; in brackets how many times as long as with Berth. docker $(docker version --format '{{.Server.Version}}') compresses what it pushes, and unpacks what it pulls; skopeo $(skopeo --version | awk '{ print $3 }') moves the layers as they are.$(containerd_told)"
    echo
    echo "| what |$(for peer in "${peers[@]}"; do printf ' %s |' "${words_of[$peer]}"; done)"
    echo "|---|$(for _ in "${peers[@]}"; do printf -- '---|'; done)"
    row "docker push" docker-push
    row "docker pull" docker-pull
    row "skopeo copy to the registry" skopeo-push
    row "skopeo copy from the registry" skopeo-pull
    [[ -z ${CONTAINERD:-} ]] || row "PullImage through CRI" cri-pull
} >&3

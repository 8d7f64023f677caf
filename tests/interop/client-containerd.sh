#!/usr/bin/env bash
# containerd from Debian: `ctr images pull` and `push`, and PullImage over its CRI socket as a kubelet calls it,
# with the user and password of an imagePullSecret. The containerd is the sandbox's own.
# shellcheck source=tests/interop/go-clients.sh
. "$(dirname "$0")/go-clients.sh"

prepare() {
    need_root
    need containerd containerd
    need ctr containerd
    need ip iproute2
    need jq jq
    need openssl openssl
    need_go cri-pull
    go_build cri-pull go -C "$root/tests/interop/cri-pull" install .
    need_binaries
}

enter_sandbox prepare

app=$registry/team/app
public=$registry/public/app
layout=$scratch/image
socket=$scratch/containerd.sock
hosts=/etc/containerd/certs.d
ctr=(ctr --address "$socket")
denied+='|authorization failed'

start_containerd() {
    mkdir -p "$scratch/containerd"
    cat >"$scratch/containerd.toml" <<CONFIG
version = 2
root = "$scratch/containerd/root"
state = "$scratch/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "$socket"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "$hosts"
CONFIG
    start containerd containerd --log-level warn --config "$scratch/containerd.toml"
    wait_for 30 "containerd" "${ctr[@]}" version
}

# images VERB [ARGUMENT...]
images() { "${ctr[@]}" images "$@"; }

# with_registry VERB LOGIN [ARGUMENT...]: LOGIN is USER:PASSWORD, or `-` for none.
with_registry() {
    local verb=$1 login=$2 options=(--hosts-dir "$hosts")
    [[ $login == - ]] || options+=(--user "$login")
    images "$verb" "${options[@]}" "${@:3}"
}

pull_image() { with_registry pull "$1" --snapshotter native "${@:2}"; }
push_image() { with_registry push "$@"; }

# push_refused ARGUMENTS...: ctr now and then loses the server's answer to a push and tells of its own pipe instead.
push_refused() {
    local told status
    for _ in 1 2 3 4 5; do
        status=0
        told=$(push_image "$@" 2>&1) || status=$?
        [[ $told == *'closed pipe'* ]] || break
    done
    printf '%s\n' "$told"
    return "$status"
}

# forget: neither images nor content are left, so that the next pull is one.
forget() {
    images ls --quiet | xargs --no-run-if-empty "${ctr[@]}" images rm --sync >/dev/null
    [[ -z $("${ctr[@]}" content ls --quiet) ]] || fail "content is left in containerd"
}

# digest_of IMAGE: what containerd says that it has under this name.
digest_of() { images ls "name==$1" | awk 'NR == 2 { print $3 }'; }

# has IMAGE TAG: containerd has under this name what the tag of our layout is.
has() { prints_lines "$(layout_digest "$layout" "$2")" digest_of "$1"; }

# import LAYOUT: its images are called team/app:TAG then.
import() {
    tar --create --file "$scratch/image.tar" --directory "$1" .
    images import --all-platforms --no-unpack --base-name "$app" "$scratch/image.tar" >/dev/null
}

# ---------------------------------------------------------------- ctr

# ctr has no login: a pull tells whether the password is right, here one of what anybody may pull.
sign_in_ctr() { pull_image "$1:$2" "$public:1"; }

trust_is_needed() {
    refused "containerd refuses the server while its CA is not in certs.d" 'x509|certificate' \
        push_image "andrew:$andrew_password" "$app:one"
    trust_containerd
}

pushes() {
    refused "push without login" "$denied" push_refused - "$app:one"
    succeeds "push of an image" push_image "andrew:$andrew_password" "$app:one"
    succeeds "push of an index" push_image "andrew:$andrew_password" "$app:many"
    images tag "$app:one" "$public:1" >/dev/null
    succeeds "push to public/app" push_image "andrew:$andrew_password" "$public:1"
    shown ctr push
    refused "push to it without a login" "$denied" push_refused - "$public:2" "$public:1"
    refused "a user who may only pull cannot push" "$denied" push_refused "reader:$reader_password" "$app:2" "$app:one"
    forget
}

logins() {
    # What anonymous may do is for who is not signed in; the reader is.
    ctl grant everyone 'public/**:pull' >/dev/null
    logins_are_checked ctr sign_in_ctr
    log_has 'POST /token .*status=200' || fail "containerd did not get a token with a form"
    ok "containerd gets its tokens with OAuth2's form"
    forget
}

pulls() {
    refused "pull without login" "$denied" pull_image - "$app:one"
    succeeds "pull by tag" pull_image "reader:$reader_password" "$app:one"
    succeeds "and it is the same image" has "$app:one" one
    shown ctr pull-tag
    forget
    local by_digest
    by_digest=$app@$(layout_digest "$layout" one)
    succeeds "pull by digest" pull_image "andrew:$andrew_password" "$by_digest"
    succeeds "and it is the same image" has "$by_digest" one
    shown ctr pull-digest
    forget
    succeeds "pull of an index, all platforms" pull_image "andrew:$andrew_password" --all-platforms "$app:many"
    succeeds "and it is the same index" has "$app:many" many
    both() { images ls "name==$app:many" | grep 'linux/amd64,linux/arm64'; }
    succeeds "with the images of both architectures" both
    shown ctr index
    forget
    succeeds "pull of a public image without a login" pull_image - "$public:1"
    refused "while team/app is not to be had without one" "$denied" pull_image - "$app:one"
    refused "a tag that is not there is not found" 'not found' pull_image "reader:$reader_password" "$app:missing"
    shown ctr anonymous
    forget
}

# containerd remembers where it has a blob from, and asks to mount it from there.
mounts_layers() {
    succeeds "pull of an image by andrew" pull_image "andrew:$andrew_password" "$app:one"
    log_mark
    succeeds "push to another repository by andrew" \
        push_image "andrew:$andrew_password" "$registry/desk/copy:one" "$app:one"
    # The layer and the configuration.
    blobs_were_mounted ctr desk/copy 2
    log_mark
    succeeds "push to another one by a user who has no right on the source" \
        push_image "pusher:$pusher_password" "$registry/desk/mine:one" "$app:one"
    blobs_were_uploaded ctr desk/mine 2
    forget
    succeeds "pull of what was pushed so" pull_image "pusher:$pusher_password" "$registry/desk/mine:one"
    succeeds "and it is the same image" has "$registry/desk/mine:one" one
    forget
}

# ---------------------------------------------------------------- CRI

# as_kubelet USER PASSWORD IMAGE: with an imagePullSecret of this user for the registry.
as_kubelet() {
    docker_config "$registry" "$1" "$2" >"$scratch/pull-secret.json"
    cri-pull "$socket" "$3" "$scratch/pull-secret.json"
}

# Every pull asks the registry for the manifest, also when containerd has the image already.
kubelet_pull_public() { as_kubelet "$1" "$2" "$public:1"; }

kubelet_pulls() {
    refused "PullImage without a secret" "$denied" cri-pull "$socket" "$app:one"
    refused "PullImage with a wrong password" "$denied" as_kubelet andrew wrong "$app:one"
    logins_are_checked cri kubelet_pull_public
    succeeds "PullImage by tag" as_kubelet reader "$reader_password" "$app:one"
    has_in_kubernetes "$app:one" || fail "containerd does not have the image"
    shown cri pull-tag
    succeeds "PullImage by digest" \
        as_kubelet andrew "$andrew_password" "$app@$(layout_digest "$layout" one)"
    shown cri pull-digest
    succeeds "PullImage of an index" as_kubelet andrew "$andrew_password" "$app:many"
    has_in_kubernetes "$app:many" || fail "containerd does not have the index"
    shown cri index
    refused "PullImage by a user without right" "$denied" as_kubelet pusher "$pusher_password" "$app:one"
    local secret
    secret=$(ctl --json robot create cluster --grant 'team/**:pull' | jq --raw-output .secret)
    succeeds "PullImage with a robot's secret in the pull secret" as_kubelet robot.cluster "$secret" "$app:one"
    ctl robot revoke cluster >/dev/null
    refused "PullImage with the secret of a revoked robot" "$denied" as_kubelet robot.cluster "$secret" "$app:one"
    shown cri robot
}

has_in_kubernetes() { "${ctr[@]}" --namespace k8s.io images ls --quiet | grep --fixed-strings "$1" >/dev/null; }

kubelet_pulls_public_images() {
    succeeds "PullImage of a public image without a secret" cri-pull "$socket" "$public:1"
    refused "while team/app is not to be had without one" "$denied" cri-pull "$socket" "$app:many"
    shown cri anonymous
}

# What a node meets in the course of time: a tag that is mistyped, a registry that is restarted, a certificate that is renewed.
kubelet_goes_on() {
    refused "PullImage of a tag that is not there" 'not found' as_kubelet andrew "$andrew_password" "$app:missing"
    stop registry-server
    refused "PullImage while Berth is stopped" 'connection refused' as_kubelet andrew "$andrew_password" "$app:one"
    start registry-server "$bin/registry-server" --config "$data/registry.toml"
    wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
    succeeds "PullImage when it is back" as_kubelet andrew "$andrew_password" "$app:one"
    local before
    before=$(served_serial)
    succeeds "the certificate is renewed" ctl cert renew
    wait_for 30 "the new certificate to be served" serves_another_than "$before"
    succeeds "PullImage with a renewed certificate" as_kubelet andrew "$andrew_password" "$app:many"
}

served_serial() { openssl s_client -connect "$registry" </dev/null 2>/dev/null | openssl x509 -noout -serial; }
serves_another_than() { [[ $(served_serial) != "$1" ]]; }

# A secret is checked at every pull: a kubelet that holds an old one does not get the image.
revoked_right_is_gone() {
    ctl revoke reader 'team/**:pull' >/dev/null
    refused "PullImage after the reader's right was revoked" "$denied" as_kubelet reader "$reader_password" "$app:one"
}

# ----------------------------------------------------------------

version=$(containerd --version | awk '{ print $3 }')
client ctr "${version%%[~+-]*}"
for feature in secret-store tags catalog delete copy referrers; do
    lacks ctr "$feature"
done
client cri "${version%%[~+-]*}"
for feature in secret-store push mount no-mount tags catalog delete copy referrers; do
    lacks cri "$feature"
done
private_home
make_layout "$layout" "containerd's words"
start_berth
start_containerd
import "$layout"
trust_is_needed
pushes
logins
pulls
mounts_layers
kubelet_pulls
kubelet_pulls_public_images
kubelet_goes_on
revoked_right_is_gone
finish_matrix

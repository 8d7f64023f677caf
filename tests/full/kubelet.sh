#!/usr/bin/env bash
# A real Kubernetes node: kube-apiserver, etcd, kubelet and containerd. Its pods' images come from Berth, with pull
# secrets, without any, and through berth-credential-provider with the pods' own service-account tokens; what is refused
# is told by the events that `kubectl describe pod` shows.
# The programs are built once, which takes ten minutes of both cores of a small machine; the checks take half a minute.
# shellcheck source=tests/interop/go-clients.sh
. "$(dirname "$0")/../interop/go-clients.sh"

kubernetes=1.34.4
node=198.51.100.20
namespace=default
issuer=https://kubernetes.default.svc.cluster.local
provider=$root/target/static/x86_64-unknown-linux-gnu/release/berth-credential-provider

prepare() {
    need_root
    need etcd etcd-server
    need containerd containerd
    need runc runc
    need skopeo skopeo
    need jq jq
    need openssl openssl
    need curl curl
    need ip iproute2
    need_static_compiler
    need_go kube-apiserver
    build_kubernetes
    build_provider
    need_binaries
}

build_kubernetes() {
    local version
    version=$("$tools/kubelet" --version 2>/dev/null || true)
    [[ $version != "Kubernetes v$kubernetes" || ! -x $tools/kubectl ]] || return 0
    note "building kube-apiserver, kubelet and kubectl $kubernetes, which takes some minutes"
    local name=k8s.io/component-base/version commands=k8s.io/kubernetes/cmd
    local flags="-s -w -X $name.gitVersion=v$kubernetes -X $name.gitMajor=1 -X $name.gitMinor=34"
    mkdir -p "$tools"
    go_build kubernetes env CGO_ENABLED=0 go -C "$root/tests/full/kubernetes" build -ldflags "$flags" \
        -o "$tools/" $commands/kube-apiserver $commands/kubectl $commands/kubelet
}

# As docs/KUBERNETES.md says it.
build_provider() {
    (cd "$root" && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --quiet \
        -p berth-credential-provider --target x86_64-unknown-linux-gnu --target-dir target/static) ||
        fail "berth-credential-provider does not build statically"
    ldd "$provider" 2>&1 | grep -q 'statically linked\|not a dynamic' || fail "berth-credential-provider needs libraries"
}

enter_sandbox prepare

app=$registry/team/hello
public=$registry/public/hello
pki=$scratch/pki
socket=$scratch/containerd.sock
admin=$(head -c 18 /dev/urandom | base64 | tr -d '+/')
kubelet_token=$(head -c 18 /dev/urandom | base64 | tr -d '+/')
export KUBECONFIG=$scratch/admin.kubeconfig
certs_d=/etc/containerd/certs.d/$registry
pods=0

# ---------------------------------------------------------------- the cluster

# The kubelet sets what is the machine's; it finds what it wants instead, and writes nothing.
shield_the_machine() {
    mount --bind /proc/sys /proc/sys
    mount -o remount,bind,ro /proc/sys
    local key value
    while read -r key value; do
        printf '%s\n' "$value" >"$scratch/$(basename "$key")"
        mount --bind "$scratch/$(basename "$key")" "/proc/sys/$key"
    done <<'KEYS'
vm/overcommit_memory 1
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
KEYS
}

# The kubelet wants its control group to be there.
make_control_groups() {
    local name controller
    name=$(basename "$scratch")
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        mkdir -p "/sys/fs/cgroup/$name"
        return
    fi
    for controller in /sys/fs/cgroup/*/; do
        [[ -e $controller/cgroup.procs ]] || continue
        mkdir -p "$controller$name"
    done
    cat /sys/fs/cgroup/cpuset/cpuset.cpus >"/sys/fs/cgroup/cpuset/$name/cpuset.cpus" 2>/dev/null || true
    cat /sys/fs/cgroup/cpuset/cpuset.mems >"/sys/fs/cgroup/cpuset/$name/cpuset.mems" 2>/dev/null || true
}

make_pki() {
    mkdir -p "$pki"
    openssl genrsa -out "$pki/accounts.key" 2048 2>/dev/null
    openssl rsa -in "$pki/accounts.key" -pubout -out "$pki/accounts.pub" 2>/dev/null
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=cluster -keyout "$pki/ca.key" -out "$pki/ca.pem" 2>/dev/null
    certificate server /CN=kube-apiserver "subjectAltName=IP:$node"
    certificate client '/O=system:masters/CN=kube-apiserver' 'extendedKeyUsage=clientAuth'
    printf '%s,admin,admin,"system:masters"\n%s,system:node:node1,node1,"system:nodes"\n' "$admin" "$kubelet_token" \
        >"$pki/tokens.csv"
}

# certificate NAME SUBJECT EXTENSION
certificate() {
    openssl req -newkey rsa:2048 -nodes -subj "$2" -keyout "$pki/$1.key" -out "$pki/$1.csr" 2>/dev/null
    openssl x509 -req -days 2 -in "$pki/$1.csr" -CA "$pki/ca.pem" -CAkey "$pki/ca.key" -CAcreateserial \
        -extfile <(printf '%s\n' "$3") -out "$pki/$1.pem" 2>/dev/null
}

start_api_server() {
    start etcd etcd --unsafe-no-fsync --data-dir "$scratch/etcd" --listen-client-urls http://127.0.0.1:2379 \
        --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
    wait_for 30 etcd curl --silent --fail http://127.0.0.1:2379/health
    start kube-apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 \
        --advertise-address $node --bind-address $node --endpoint-reconciler-type none \
        --tls-cert-file "$pki/server.pem" --tls-private-key-file "$pki/server.key" --client-ca-file "$pki/ca.pem" \
        --token-auth-file "$pki/tokens.csv" --authorization-mode Node,RBAC \
        --enable-admission-plugins NodeRestriction --kubelet-client-certificate "$pki/client.pem" \
        --kubelet-client-key "$pki/client.key" --kubelet-preferred-address-types InternalIP \
        --service-cluster-ip-range 10.0.0.0/24 --service-account-issuer $issuer \
        --service-account-key-file "$pki/accounts.pub" --service-account-signing-key-file "$pki/accounts.key"
    kubeconfig "$KUBECONFIG" "$admin"
    kubeconfig "$scratch/kubelet.kubeconfig" "$kubelet_token"
    wait_for 120 "the API server" kubectl get --raw /readyz
    kubectl create serviceaccount default >/dev/null
}

# kubeconfig FILE TOKEN
kubeconfig() {
    cat >"$1" <<CONFIG
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://$node:6443", certificate-authority: "$pki/ca.pem"}}]
users: [{name: u, user: {token: "$2"}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
CONFIG
    chmod 600 "$1"
}

start_node() {
    cat >"$scratch/containerd.toml" <<CONFIG
version = 2
root = "$scratch/containerd/root"
state = "$scratch/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "$socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "pause.test/pause:1"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
CONFIG
    start containerd containerd --log-level warn --config "$scratch/containerd.toml"
    wait_for 30 containerd ctr --address "$socket" version
    tar --create --file "$scratch/pause.tar" --directory "$scratch/pause" .
    ctr --address "$socket" --namespace k8s.io images import --snapshotter native --base-name pause.test/pause \
        "$scratch/pause.tar" >/dev/null
    mkdir -p "$scratch/plugins"
    cp "$provider" "$scratch/plugins/"
    provider_settings >"$scratch/provider.yaml"
    cat >"$scratch/kubelet.yaml" <<CONFIG
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$socket
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $pki/ca.pem}}
authorization: {mode: AlwaysAllow}
address: $node
healthzPort: 0
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
cgroupRoot: /$(basename "$scratch")
failSwapOn: false
failCgroupV1: false
podLogsDir: $scratch/pod-logs
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: "50Mi"}
serializeImagePulls: false
CONFIG
    start kubelet kubelet --config "$scratch/kubelet.yaml" --kubeconfig "$scratch/kubelet.kubeconfig" \
        --root-dir "$scratch/kubelet" --cert-dir "$scratch/kubelet-pki" --hostname-override node1 --node-ip $node \
        --image-credential-provider-config "$scratch/provider.yaml" --image-credential-provider-bin-dir "$scratch/plugins"
    wait_for 60 "the node" kubectl get node node1
}

# The example of deploy/kubernetes, with this registry's port.
provider_settings() { sed "s/reg\.homelab\.lan:5000/$registry/g" "$root/deploy/kubernetes/credential-provider.yaml"; }

# ---------------------------------------------------------------- images and pods

# make_image DIRECTORY TAG: an OCI layout with a program that prints the greeting and waits.
make_image() {
    local dir=$1 work type=application/vnd.oci.image layer config
    work=$(mktemp -d -p "$scratch")
    mkdir -p "$dir/blobs/sha256"
    printf '#include <stdio.h>\n#include <unistd.h>\nint main(void) { puts("%s"); fflush(stdout); for (;;) pause(); }\n' \
        "$greeting" >"$work/hello.c"
    gcc -static -Os -o "$work/hello" "$work/hello.c"
    tar --create --file "$work/layer.tar" --directory "$work" hello
    layer=$(gzip --no-name --stdout "$work/layer.tar" | layout_blob "$dir" $type.layer.v1.tar+gzip)
    config=$(jq --null-input --arg diff "sha256:$(sha256sum <"$work/layer.tar" | cut -d ' ' -f 1)" \
        '{architecture: "amd64", os: "linux", config: {Entrypoint: ["/hello"]}, rootfs: {type: "layers", diff_ids: [$diff]}}' |
        layout_blob "$dir" $type.config.v1+json)
    printf '{"imageLayoutVersion": "1.0.0"}\n' >"$dir/oci-layout"
    jq --null-input --arg type $type.manifest.v1+json --argjson config "$config" --argjson layer "$layer" \
        '{schemaVersion: 2, mediaType: $type, config: $config, layers: [$layer]}' |
        layout_blob "$dir" $type.manifest.v1+json |
        jq --arg tag "$2" '{schemaVersion: 2, manifests: [. + {annotations: {"org.opencontainers.image.ref.name": $tag}}]}' \
            >"$dir/index.json"
}

push_images() {
    trust_containers
    local to
    for to in "$app:v1" "$app:v2" "$public:v1"; do
        skopeo copy --quiet --dest-creds "andrew:$andrew_password" "oci:$scratch/pause:1" "docker://$to" ||
            fail "pushing $to"
    done
}

# pod IMAGE [FIELDS]: makes a pod of a new name, with more fields of its spec, and sets $pod.
pod() {
    pods=$((pods + 1))
    pod=pod-$pods
    kubectl --namespace "$namespace" create --filename - >/dev/null <<POD
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "$pod"}, "spec": {
 "nodeName": "node1", "hostNetwork": true, "terminationGracePeriodSeconds": 1, "restartPolicy": "Never",
 "automountServiceAccountToken": false ${2:+, $2},
 "containers": [{"name": "c", "image": "$1", "imagePullPolicy": "Always"}]}}
POD
}

phase() { kubectl --namespace "$namespace" get pod "$pod" --output 'jsonpath={.status.phase}'; }
is_running() { [[ $(phase) == Running ]]; }
messages() {
    kubectl --namespace "$namespace" get events --field-selector "involvedObject.name=$pod" \
        --output 'jsonpath={range .items[*]}{.message}{"\n"}{end}'
}
has_failed() { messages | grep --quiet 'Failed to pull image'; }

# runs DESCRIPTION IMAGE [FIELDS]
runs() {
    pod "$2" "${3:-}"
    wait_for 60 "a pod to run: $1" is_running
    ok "$1: running"
    gone
}

# fails DESCRIPTION WORDS IMAGE [FIELDS]: the pod's event has these words.
fails() {
    pod "$3" "${4:-}"
    wait_for 60 "an event of a failed pull: $1" has_failed
    messages | grep 'Failed to pull image' | grep --quiet --extended-regexp "$2" ||
        fail "$1: the events say $(messages | head -n 3)"
    ok "$1: $2"
    gone
}

gone() {
    kubectl --namespace "$namespace" delete pod "$pod" --wait=false --grace-period=0 --force >/dev/null 2>&1
}

# secret NAME USER PASSWORD [SERVER]
secret() {
    kubectl --namespace "$namespace" create secret docker-registry "$1" --docker-server="${4:-$registry}" \
        --docker-username="$2" --docker-password="$3" >/dev/null
}
with_secret() { printf '"imagePullSecrets": [{"name": "%s"}]' "$1"; }

# ---------------------------------------------------------------- checks

not_allowed='pull access denied, repository does not exist or may require authorization: server message: insufficient_scope'
wrong='failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized'

trust_of_the_node() {
    fails "a node that does not trust the CA" 'x509: certificate signed by unknown authority' "$app:v1"
    trust_containerd
}

pull_secrets() {
    fails "no secret" "$not_allowed" "$app:v1"
    ctl robot create cluster --grant 'team/**:pull' --json >"$scratch/robot.json"
    secret good robot.cluster "$(jq --raw-output .secret "$scratch/robot.json")"
    runs "the pull secret of a robot" "$app:v1" "$(with_secret good)"
    secret portless robot.cluster "$(jq --raw-output .secret "$scratch/robot.json")" "$host"
    fails "a secret without the port" "$not_allowed" "$app:v1" "$(with_secret portless)"
    secret bad robot.cluster wrong
    fails "a wrong password" "$wrong" "$app:v1" "$(with_secret bad)"
    fails "a tag that is not there" "$app:v9: not found" "$app:v9" "$(with_secret good)"
    runs "without a secret, what anybody may pull" "$public:v1"
    ctl robot revoke cluster >/dev/null
    fails "the secret of a revoked robot" "$wrong" "$app:v2" "$(with_secret good)"
    fails "which blocks public images too" "$wrong" "$public:v1" "$(with_secret good)"
}

service_accounts() {
    namespace=prod
    kubectl create namespace prod >/dev/null
    kubectl apply --filename "$root/deploy/kubernetes/service-account.yaml" >/dev/null
    kubectl --namespace prod create serviceaccount default >/dev/null 2>&1 || true
    kubectl get --raw /openid/v1/jwks >"$scratch/keys.json"
    ctl trust add builder --issuer $issuer --audience "$host" --subject system:serviceaccount:prod:builder \
        --keys "$scratch/keys.json" --grant 'team/**:pull' >/dev/null
    local account='"serviceAccountName": "builder"'
    fails "a node that may not ask for the audience" "$not_allowed" "$app:v1" "$account"
    kubectl apply --filename "$root/deploy/kubernetes/node-may-ask.yaml" >/dev/null
    runs "the pod's own service account" "$app:v1" "$account"
    runs "an account without the annotation pulls what anybody may" "$public:v1" '"serviceAccountName": "default"'
    fails "and nothing else" "$not_allowed" "$app:v1" '"serviceAccountName": "default"'
    kubectl --namespace prod create serviceaccount other >/dev/null
    kubectl --namespace prod annotate serviceaccount other berth/trust=builder >/dev/null
    fails "another account that names the trust" "$wrong" "$app:v1" '"serviceAccountName": "other"'
    ctl trust remove builder >/dev/null
    fails "the trust taken away" "$wrong" "$app:v2" "$account"
    keys_that_are_fetched
    namespace=default
}

keys_that_are_fetched() {
    local trust=(trust add builder --issuer "$issuer" --audience "$host" --subject system:serviceaccount:prod:builder
        --keys-url "https://$node:6443/openid/v1/jwks" --ca "$pki/ca.pem" --grant 'team/**:pull')
    kubectl create clusterrolebinding berth-reads-keys --clusterrole=system:service-account-issuer-discovery \
        --group=system:unauthenticated >/dev/null
    says "trust add --keys-url of a real API server" 0 'Its issuer gives keys: 1' ctl "${trust[@]}"
    runs "keys that are fetched from the API server" "$app:v2" '"serviceAccountName": "builder"'
}

interruptions() {
    ctl robot create again --grant 'team/**:pull' --json >"$scratch/again.json"
    secret again robot.again "$(jq --raw-output .secret "$scratch/again.json")"
    stop auth-server
    fails "auth-server stopped" 'unexpected status: 503 Service Unavailable' "$app:v1" "$(with_secret again)"
    pod "$app:v2" "$(with_secret again)"
    stop registry-server
    pod "$app:v1" "$(with_secret again)"
    wait_for 60 "an event" has_failed
    messages | grep --quiet 'connect: connection refused' || fail "Berth stopped: $(messages)"
    start auth-server "$bin/auth-server" --config "$data/auth.toml"
    start registry-server "$bin/registry-server" --config "$data/registry.toml"
    wait_for 120 "the pod to run by itself" is_running
    ok "Berth stopped and back: running by itself"
    gone
    succeeds "the certificate is renewed" ctl cert renew
    runs "with a renewed certificate" "$app:v2" "$(with_secret again)"
}

# ----------------------------------------------------------------

ip address add $node/32 dev lo
mkdir -p "$(dirname "$certs_d")"
shield_the_machine
make_control_groups
start_berth
make_image "$scratch/pause" 1
push_images
make_pki
start_api_server
start_node
note "Kubernetes $kubernetes, $(containerd --version | cut -d ' ' -f 1-3)"
trust_of_the_node
pull_secrets
service_accounts
interruptions

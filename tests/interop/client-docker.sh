#!/usr/bin/env bash
# docker, engine and CLI: what homelab.sh does not show. Indexes, mounts, anonymous pull beside authenticated push,
# and logins that are kept in an encrypted credential store.
# shellcheck source=tests/interop/stack.sh
. "$(dirname "$0")/stack.sh"

prepare() {
    need_docker
    need curl curl
    need jq jq
    need gpg gnupg
    need tree tree
    need_binaries
    unpack_credential_store
}

# Where docker finds docker-credential-pass beside pass, every login of this machine goes there, even those of its users.
# So Debian's packages are unpacked, not installed.
unpack_credential_store() {
    [[ ! -x $store_bin/docker-credential-pass ]] || return 0
    command -v apt-get >/dev/null || skip "apt-get is missing, which fetches pass and golang-docker-credential-helpers"
    local dir=$root/target/interop/credential-store.partial
    rm -rf "$dir"
    mkdir -p "$dir"
    download_credential_store "$dir" || { apt-get update >/dev/null && download_credential_store "$dir"; } ||
        skip "pass and golang-docker-credential-helpers could not be fetched"
    local package
    for package in "$dir"/*.deb; do
        dpkg-deb --extract "$package" "$dir"
    done
    mv "$dir" "${dir%.partial}"
}

# apt would fetch as a user of its own, who may not write here.
download_credential_store() {
    (cd "$1" && apt-get --option APT::Sandbox::User=root download pass golang-docker-credential-helpers) >/dev/null 2>&1
}

store_bin=$root/target/interop/credential-store/usr/bin

enter_sandbox prepare

app=$registry/team/app

sign_in_docker() { sign_in "$registry" "$@"; }

# make_image IMAGE WORDS [PLATFORM]: its only layer holds the words, so other words are another layer.
make_image() {
    local dir
    dir=$(mktemp -d -p "$scratch")
    printf '%s\n' "$2" >"$dir/words"
    printf 'FROM scratch\nCOPY words /words\nCMD ["/words"]\n' >"$dir/Dockerfile"
    docker build --quiet --platform "${3:-linux/amd64}" --tag "$1" "$dir" >/dev/null 2>&1 || fail "docker build of $1"
}

image_id() { docker image inspect --format '{{.Id}}' "$1"; }

# pushed_digest IMAGE: what the registry calls it.
pushed_digest() { docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$1" | sed -n "s|^${1%:*}@||p"; }

# use_plain_config DIRECTORY: with a first entry, docker does not look for a credential store that the machine may have.
use_plain_config() {
    mkdir -p "$1"
    printf '{"auths": {"unused.invalid": {}}}\n' >"$1/config.json"
}

# ---------------------------------------------------------------- the checks

pushes_and_pulls() {
    local id digest
    make_image "$app:1" "docker's words"
    id=$(image_id "$app:1")
    succeeds "push" docker push "$app:1"
    shown docker push
    digest=$(pushed_digest "$app:1")
    forget_images
    succeeds "pull by tag" docker pull "$app:1"
    [[ $(image_id "$app:1") == "$id" ]] || fail "another image came by tag"
    shown docker pull-tag
    forget_images
    succeeds "pull by digest" docker pull "$app@$digest"
    [[ $(image_id "$app@$digest") == "$id" ]] || fail "another image came by digest"
    shown docker pull-digest
}

# `docker manifest` asks the registry by itself, without the engine.
an_index_stays_whole() {
    local arch
    for arch in amd64 arm64; do
        make_image "$app:$arch" "docker's words for $arch" "linux/$arch"
        succeeds "push of the image for $arch" docker push "$app:$arch"
    done
    succeeds "manifest create" docker manifest create "$app:many" "$app:amd64" "$app:arm64"
    succeeds "manifest annotate" docker manifest annotate --arch arm64 --variant v8 "$app:many" "$app:arm64"
    succeeds "manifest push" docker manifest push --purge "$app:many"
    local index=${output##*$'\n'}
    succeeds "manifest inspect" has_both_architectures "$app:many"
    for arch in amd64 arm64; do
        forget_images
        succeeds "pull of the index for $arch" docker pull --platform "linux/$arch" "$app:many"
        [[ $(docker image inspect --format '{{.Architecture}}' "$app:many") == "$arch" ]] ||
            fail "another architecture than $arch came"
    done
    succeeds "pull of the index by digest" docker pull --platform linux/arm64 "$app@$index"
    shown docker index
}

has_both_architectures() {
    [[ $(docker manifest inspect "$1" | jq --raw-output '.manifests[].platform.architecture' | sort | xargs) == "amd64 arm64" ]]
}

mounts_layers() {
    make_image "$app:mount" "words to mount"
    succeeds "push to team/app" docker push "$app:mount"
    docker tag "$app:mount" "$registry/desk/copy:1"
    log_mark
    succeeds "push of the same image to desk/copy" docker push "$registry/desk/copy:1"
    tried_to_mount team/app || fail "docker did not try to mount"
    mounted desk/copy || fail "no layer was mounted"
    ok "the layer was mounted from team/app"
    forget_images
    succeeds "pull from desk/copy" docker pull "$registry/desk/copy:1"
    shown docker mount
}

signs_in_as_a_robot() {
    local secret
    secret=$(ctl --json robot create ci --grant 'team/**:pull' --expires 3d | jq --raw-output .secret)
    succeeds "login of a robot" sign_in_docker robot.ci "$secret"
    forget_images
    succeeds "pull by a robot" docker pull "$registry/team/only:1"
    refused "push by a robot that may pull alone" "$denied" docker push "$registry/team/only:1"
    ctl robot revoke ci >/dev/null
    refused "login of a revoked robot" "$denied" sign_in_docker robot.ci "$secret"
    shown docker robot
}

# dockerd remembers that it pushed the layer to team/only, whoever was signed in.
uploads_what_it_may_not_mount() {
    make_image "$registry/team/only:1" "words of team/only"
    succeeds "push to team/only" docker push "$registry/team/only:1"
    docker tag "$registry/team/only:1" "$registry/desk/mine:1"
    succeeds "the pusher signs in, who has no right on team/only" sign_in_docker pusher "$pusher_password"
    log_mark
    succeeds "push of the same image to desk/mine" docker push "$registry/desk/mine:1"
    tried_to_mount team/only || fail "docker did not try to mount"
    ! mounted desk/mine || fail "a layer was mounted without a right on its repository"
    uploaded desk/mine || fail "no layer was uploaded"
    ok "the layer was uploaded, since the pusher may not mount it"
    forget_images
    succeeds "pull from desk/mine" docker pull "$registry/desk/mine:1"
    refused "the pusher may not pull from team/only" "$denied" docker pull "$registry/team/only:1"
    shown docker no-mount
}

# With debugging on, dockerd says what it tries.
tried_to_mount() { grep --quiet "attempting to mount layer .*$1" "$scratch/logs/dockerd.log"; }

anonymous_pulls_beside() {
    local public=$registry/public/app:1
    sign_in_docker andrew "$andrew_password" >/dev/null 2>&1
    make_image "$public" "words for everybody"
    succeeds "push to public/app, signed in" docker push "$public"
    succeeds "pull of it without a login" without_login docker pull "$public"
    refused "push to it without a login" "$denied" without_login docker push "$public"
    refused "pull of team/app without a login" "$denied" without_login docker pull "$app:1"
    succeeds "push to it, still signed in" docker push "$public"
    succeeds "logout" docker logout "$registry"
    forget_images
    succeeds "pull of it after logout" docker pull "$public"
    refused "pull of team/app after logout" "$denied" docker pull "$app:1"
    shown docker anonymous
}

# without_login COMMAND...: as another user of this machine, who never signed in.
without_login() {
    use_plain_config "$scratch/nobody"
    DOCKER_CONFIG=$scratch/nobody "$@"
}

# ---------------------------------------------------------------- the credential store

make_credential_store() {
    mkdir -m 0700 "$GNUPGHOME"
    gpg --batch --quiet --pinentry-mode loopback --passphrase '' --quick-generate-key 'throw-away@homelab.lan' &&
        pass init throw-away@homelab.lan
}

stored() { docker-credential-pass list | jq --exit-status --arg registry "$registry" 'has($registry)' >/dev/null; }

# not_in_plain PASSWORD: neither it nor its Basic form stands in docker's configuration or in the store's files.
not_in_plain() {
    local secret
    for secret in "$1" "$(printf '%s' "$1" | base64 --wrap 0)" "$(printf 'andrew:%s' "$1" | base64 --wrap 0)"; do
        ! grep --recursive --fixed-strings --files-with-matches -e "$secret" "$DOCKER_CONFIG" "$PASSWORD_STORE_DIR" || return 1
    done
    jq --exit-status '[.auths[]? | .auth // .identitytoken // empty] == []' "$DOCKER_CONFIG/config.json" >/dev/null
}

keeps_secrets_in_a_store() {
    PATH=$store_bin:$PATH
    export GNUPGHOME=$scratch/gnupg PASSWORD_STORE_DIR=$scratch/password-store DOCKER_CONFIG=$scratch/docker-config-pass
    succeeds "a GPG key and a password store" make_credential_store
    mkdir "$DOCKER_CONFIG"
    printf '{"credsStore": "pass"}\n' >"$DOCKER_CONFIG/config.json"
    refused "credential store: a wrong password" "$denied" sign_in_docker andrew wrong
    ! stored || fail "a wrong password was stored"
    succeeds "credential store: login" sign_in_docker andrew "$andrew_password"
    succeeds "credential store: it has the login" stored
    succeeds "credential store: no secret in plain, neither in docker's configuration nor in the store" \
        not_in_plain "$andrew_password"
    make_image "$app:store" "words of the store"
    succeeds "credential store: push" docker push "$app:store"
    forget_images
    succeeds "credential store: pull" docker pull "$app:store"
    succeeds "credential store: manifest inspect" docker manifest inspect "$app:store"
    succeeds "credential store: logout" docker logout "$registry"
    ! stored || fail "the login stayed in the store"
    refused "credential store: push after logout" "$denied" docker push "$app:store"
    succeeds "credential store: still no secret in plain" not_in_plain "$andrew_password"
    shown docker secret-store
}

# ----------------------------------------------------------------

printf '{"debug": true}\n' >/etc/docker/daemon.json
use_plain_config "$scratch/docker-config"
start_dockerd
client docker "$(docker version --format '{{.Client.Version}}, engine {{.Server.Version}}')"
for feature in tags catalog delete copy referrers; do
    lacks docker "$feature"
done
start_berth
trust "$registry" "$certs/ca.pem"
logins_are_checked docker sign_in_docker
pushes_and_pulls
an_index_stays_whole
mounts_layers
uploads_what_it_may_not_mount
anonymous_pulls_beside
signs_in_as_a_robot
keeps_secrets_in_a_store
finish_matrix

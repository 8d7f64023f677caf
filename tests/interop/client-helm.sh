#!/usr/bin/env bash
# helm with charts in a registry: login, package, push, pull by version and by digest, and rendering them from there.
# shellcheck source=tests/interop/go-clients.sh
. "$(dirname "$0")/go-clients.sh"

helm=helm.sh/helm/v3/cmd/helm@v3.22.0

prepare() {
    need_root
    go_tool $helm
    need ip iproute2
    need jq jq
    need_binaries
}

enter_sandbox prepare

charts=oci://$registry/team
chart=$charts/berth-demo
out=$scratch/out

# sign_in_helm USER PASSWORD
sign_in_helm() { printf '%s' "$2" | helm registry login "$registry" --username "$1" --password-stdin; }

# make_chart VERSION: a chart with one template, packaged.
make_chart() {
    local dir=$scratch/chart/berth-demo
    mkdir -p "$dir/templates"
    printf 'apiVersion: v2\nname: berth-demo\ndescription: A chart of one map\nversion: %s\n' "$1" >"$dir/Chart.yaml"
    printf 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: words\ndata:\n  words: helm in {{ .Chart.Version }}\n' \
        >"$dir/templates/map.yaml"
    helm package "$dir" --destination "$scratch"
}

# pulls CHART VERSION [OPTION...]: the package, byte for byte.
pulls() {
    rm -rf "$out"
    mkdir -p "$out"
    helm pull "$1" --destination "$out" "${@:3}" && cmp "$scratch/berth-demo-$2.tgz" "$out"/*.tgz
}

# renders VERSION COMMAND...: what the command prints holds the words of that version.
renders() {
    local version=$1 text
    shift
    text=$("$@") && grep --fixed-strings "words: helm in $version" <<<"$text"
}

# ---------------------------------------------------------------- the checks

trust_is_needed() {
    refused "helm refuses the server while it does not know its CA" 'x509|certificate' \
        sign_in_helm andrew "$andrew_password"
    trust_go
}

login_is_needed() {
    refused "push without login" "$denied" helm push "$scratch/berth-demo-1.0.0.tgz" "$charts"
    refused "pull without login" "$denied" helm pull "$chart" --version 1.0.0 --destination "$out"
    logins_are_checked helm sign_in_helm
}

pushes_and_pulls() {
    succeeds "push of a chart" helm push "$scratch/berth-demo-1.0.0.tgz" "$charts"
    local digest
    digest=$(sed -n 's/^Digest: //p' <<<"$output")
    shown helm push
    succeeds "push of a newer one, with build metadata in its version" \
        helm push "$scratch/berth-demo-1.1.0+build.5.tgz" "$charts"
    succeeds "pull by version" pulls "$chart" 1.0.0 --version 1.0.0
    succeeds "pull of the version with build metadata" pulls "$chart" 1.1.0+build.5 --version 1.1.0+build.5
    shown helm pull-tag
    succeeds "pull by digest" pulls "$chart@$digest" 1.0.0
    shown helm pull-digest
    refused "a user who may only pull cannot push" "$denied" \
        as_reader helm push "$scratch/berth-demo-1.2.0.tgz" "$charts"
}

# helm keeps its logins in a place of its own.
as_reader() {
    export HOME=$scratch/reader
    sign_in_helm reader "$reader_password" && "$@"
}

# Without an exact version helm lists the tags and takes the newest that fits.
finds_versions() {
    log_mark
    succeeds "pull of the newest version" pulls "$chart" 1.1.0+build.5
    succeeds "pull of the newest version below 1.1" pulls "$chart" 1.0.0 --version '<1.1.0'
    log_since 'GET /v2/team/berth-demo/tags/list .*status=200' || fail "helm did not list the tags"
    shown helm tags
}

# `helm install` fetches a chart as `helm template` does, but wants a cluster even for a dry run.
renders_from_the_registry() {
    shows_chart() { helm show chart "$chart" --version 1.0.0 | grep --line-regexp 'version: 1.0.0'; }
    succeeds "show chart" shows_chart
    succeeds "template" renders 1.0.0 helm template demo "$chart" --version 1.0.0
}

# A chart that needs another one from the registry.
resolves_dependencies() {
    local dir=$scratch/parent
    mkdir -p "$dir"
    {
        printf 'apiVersion: v2\nname: parent\nversion: 1.0.0\ndependencies:\n'
        printf -- '- {name: berth-demo, version: 1.0.0, repository: "%s"}\n' "$charts"
    } >"$dir/Chart.yaml"
    succeeds "dependency update" helm dependency update "$dir"
    cmp "$scratch/berth-demo-1.0.0.tgz" "$dir"/charts/*.tgz || fail "another chart came as the dependency"
}

anonymous_pulls_beside() {
    local public=oci://$registry/public/berth-demo
    succeeds "push to public, signed in" helm push "$scratch/berth-demo-1.0.0.tgz" "oci://$registry/public"
    succeeds "pull of it without a login" signed_out pulls "$public" 1.0.0 --version 1.0.0
    refused "push to it without a login" "$denied" \
        signed_out helm push "$scratch/berth-demo-1.2.0.tgz" "oci://$registry/public"
    succeeds "logout" helm registry logout "$registry"
    succeeds "template of it after logout" renders 1.0.0 helm template demo "$public" --version 1.0.0
    refused "pull of team/berth-demo after logout" "$denied" \
        helm pull "$chart" --version 1.0.0 --destination "$out"
    shown helm anonymous
}

# ----------------------------------------------------------------

client helm "${helm##*@}"
for feature in index mount no-mount catalog delete copy referrers; do
    lacks helm "$feature"
done
private_home
for version in 1.0.0 1.1.0+build.5 1.2.0; do
    succeeds "package of a chart $version" make_chart "$version"
done
start_berth
trust_is_needed
login_is_needed
pushes_and_pulls
finds_versions
renders_from_the_registry
resolves_dependencies
anonymous_pulls_beside
finish_matrix

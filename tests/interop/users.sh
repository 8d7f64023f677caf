#!/usr/bin/env bash
# Each server has a user of its own: an installation in which both ran as `berth` becomes one, by split-users.sh, and
# then the registry's user reaches nothing of auth-server but its socket. With one user, as before, it went through
# /proc/PID/root past what its unit hid from it; that is closed as well.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

prepare() {
    need curl curl
    need ip iproute2
    need jq jq
    need_binaries
}

enter_sandbox prepare

split=$root/deploy/systemd/split-users.sh
data=/var/lib/berth config=/etc/berth
mount -t tmpfs -o mode=0755 sandbox /var/lib

# as USER COMMAND...: with all groups of that user, and no rights beyond them.
as() { setpriv --reuid "$1" --regid "$1" --init-groups --no-new-privs --inh-caps=-all "${@:2}"; }

# start_as NAME USER COMMAND...: the process itself is the user's, and no shell is in between.
start_as() {
    start "$1" setpriv --reuid "$2" --regid "$2" --init-groups --no-new-privs --inh-caps=-all "${@:3}"
}

ctl() { "$bin/authctl" --config "$config/auth.toml" "$@"; }
auth() { "$bin/auth-server" --config "$config/auth.toml" "$@"; }
registry() { "$bin/registry-server" --config "$config/registry.toml" "$@"; }

# start_both USER USER
start_both() {
    start_as auth-server "$1" "$bin/auth-server" --config "$config/auth.toml"
    start_as registry-server "$2" "$bin/registry-server" --config "$config/registry.toml"
    wait_for 30 "auth-server to be healthy" auth health
    wait_for 30 "registry-server to be healthy" registry health
}

stop_both() {
    stop registry-server
    stop auth-server
}

# ---------------------------------------------------------------- one user, as it was

useradd --system --user-group --home-dir "$data" --shell /usr/sbin/nologin berth
install -d -o berth -g berth -m 0750 "$config" "$data"
as berth env BERTH_PASSWORD=one-secret "$bin/authctl" init --split --data "$data" --config-dir "$config" \
    --host "$host" --port 5443 >"$scratch/init.log"
start_both berth berth
key=$(find "$data/auth/keys" -name '*.pem' | head -n 1)
[[ -f $key ]] || key=$(find "$data/auth/keys" -type f | head -n 1)
pid=${pid_of[auth-server]}

# In a mount namespace of its own the directory is hidden, as a unit's InaccessiblePaths does.
hidden() {
    unshare --mount bash -c 'mount -t tmpfs none "$1" && shift && exec "$@"' hidden "$data/auth" \
        setpriv --reuid berth --regid berth --init-groups --no-new-privs --inh-caps=-all "$@"
}
start_as bystander berth sleep 600
refused "one user: the hidden path leads nowhere" 'no such file' hidden cat "$key"
wait_for 10 "a process that is not closed" hidden cat "/proc/${pid_of[bystander]}/root$key"
ok "one user: /proc/PID/root of a process that is not closed leads past what is hidden"
for way in root environ mem maps fd; do
    path=/proc/$pid/$way
    [[ $way == root ]] && path+=$key
    [[ $way == fd ]] && path+=/0
    refused "one user: /proc/PID/$way of auth-server is closed" 'permission denied' hidden head -c 1 "$path"
done
registry_closed() { [[ $(stat --format %U "/proc/${pid_of[registry-server]}/mem") == root ]]; }
succeeds "one user: so is registry-server" registry_closed
stop bystander || true

# ---------------------------------------------------------------- from one user to two

refused "split-users.sh gives nothing away while the servers run" 'systemctl stop' "$split"
stop_both
owners() { find "$data" "$config" -printf '%p %u:%g %m\n' | sort; }
before=$(owners)
# Settings that lead to a file of root's would be read, given away, and laid down for all to read.
mkdir -m 0700 "$config.roots"
printf 'socket = "SECRET"\n' >"$config.roots/notes"
secret=$(stat --format '%u %g %a %s' "$config.roots/notes")
for kind in "symbolic link" "hard link" pipe; do
    as berth mv "$config/auth.toml" "$config/aside"
    case $kind in
    symbolic*) as berth ln -s "$config.roots/notes" "$config/auth.toml" ;;
    # As on a system that protects no hard links.
    hard*) ln "$config.roots/notes" "$config/auth.toml" ;;
    pipe) as berth mkfifo "$config/auth.toml" ;;
    esac
    planted=$(owners)
    refused "split-users.sh takes no settings that are a $kind" 'put the settings themselves there' timeout 20 "$split"
    [[ $(owners) == "$planted" && $(stat --format '%u %g %a %s' "$config.roots/notes") == "$secret" ]] ||
        fail "it changed something all the same"
    rm "$config/auth.toml"
    as berth mv "$config/aside" "$config/auth.toml"
done
[[ $(owners) == "$before" ]] || fail "what was there is not as it was"
as berth mv "$data/certs/server.key" "$data/certs/aside"
ln "$config.roots/notes" "$data/certs/server.key" 2>/dev/null || ln -s "$config.roots/notes" "$data/certs/server.key"
says "split-users.sh leaves a certificate's key alone that is a file of root's" 0 'left .*server.key as it is' "$split" --dry-run
rm -r "$config.roots" "$data/certs/server.key"
as berth mv "$data/certs/aside" "$data/certs/server.key"
says "split-users.sh --dry-run tells what it would do" 0 "would give all of $data/registry to berth-registry:" "$split" --dry-run
[[ $(owners) == "$before" ]] || fail "--dry-run changed something"
# What is not berth's is not given away: a hard link to a file of root's, and what a link leads to.
echo secret >"$scratch/of-root" && chmod 0600 "$scratch/of-root"
mkdir "$data/of-root" && echo secret >"$data/of-root/file"
ln "$data/of-root/file" "$data/registry/objects/planted"
ln -s "$data/of-root/file" "$data/auth/planted"
says "split-users.sh makes two users and gives each its own" 0 "userdel berth" "$split"
[[ $(stat --format %U "$data/of-root/file") == root ]] || fail "a file of root's was given away"
ok "neither a hard link nor a link gave away what was not berth's"
rm -r "$data/registry/objects/planted" "$data/auth/planted" "$data/of-root"
says "typed again it has nothing to do" 0 "nothing is missing" "$split"
[[ -z $(find "$data" "$config" -user berth) ]] || fail "still berth's: $(find "$data" "$config" -user berth)"
ok "nothing is left to the old user"
userdel berth
start_both berth-auth berth-registry
pid=${pid_of[auth-server]}

# ---------------------------------------------------------------- what the registry's user reaches

for path in "$key" "$data/auth/htpasswd" "$data/auth/auth.db" "$data/ca/ca.key" "$config/auth.toml" \
    "/proc/$pid/root$key" "/proc/$pid/mem" "/proc/$pid/environ"; do
    refused "the registry's user may not read $(sed "s|/$pid/|/PID/|" <<<"$path")" 'permission denied' \
        as berth-registry head -c 1 "$path"
done
refused "auth-server's user may not read what the registry stores" 'permission denied' as berth-auth ls "$data/registry"
refused "nor may the registry's user write its own settings" 'permission denied' \
    as berth-registry touch "$config/registry.toml"
[[ $(stat --format '%U:%G %a' "$data/run/auth.sock") == "berth-auth:berth 660" ]] || fail "the socket is somebody else's"
useradd --system --user-group stranger
refused "others than the group do not reach the socket" 'permission denied|could not|failed to connect' \
    as stranger curl --silent --show-error --unix-socket "$data/run/auth.sock" http://x/keys
sign_in_by_registry() {
    curl --silent --show-error --fail --cacert "$data/ca/ca.pem" --user andrew:one-secret \
        "https://$host:5443/token?service=berth" | grep --quiet '"token"'
}
succeeds "a sign-in goes from the registry over the socket of the group" sign_in_by_registry

# ---------------------------------------------------------------- root, and renewal

succeeds "authctl as root adds a user" bash -c "echo another-secret | '$bin/authctl' --config '$config/auth.toml' user add lena --password-stdin"
fingerprint() { sha256sum <"$data/certs/server.pem"; }
before=$(fingerprint)
succeeds "authctl as root renews the certificate" ctl cert renew
[[ $(fingerprint) != "$before" ]] || fail "the certificate is the old one"
rm "$data/certs/server.pem" "$data/certs/server.key"
succeeds "authctl as root makes it anew, with another key" ctl cert init --host "$host"
of_the_group() {
    [[ $(stat --format '%U:%G %a' "$data/certs/server.pem") == "berth-auth:berth 644" &&
        $(stat --format '%U:%G %a' "$data/certs/server.key") == "berth-auth:berth 640" ]]
}
succeeds "which the registry's group may read" of_the_group

push_a_blob() {
    local token digest
    ctl grant andrew 'team/**:pull,push' >/dev/null
    token=$(curl --silent --show-error --fail --cacert "$data/ca/ca.pem" --user andrew:one-secret \
        "https://$host:5443/token?service=berth&scope=repository:team/app:pull,push" | jq --raw-output .token)
    digest=sha256:$(printf content | sha256sum | cut --delimiter ' ' --fields 1)
    curl --silent --show-error --fail --cacert "$data/ca/ca.pem" --header "Authorization: Bearer $token" \
        --data-binary content "https://$host:5443/v2/team/app/blobs/uploads/?digest=$digest"
    curl --silent --show-error --fail --cacert "$data/ca/ca.pem" --header "Authorization: Bearer $token" \
        --request PUT --header 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
        --data "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"a/b\",\"digest\":\"$digest\",\"size\":7},\"layers\":[]}" \
        "https://$host:5443/v2/team/app/manifests/v1"
}
succeeds "a push" push_a_blob
for verb in list "gc --dry-run" verify "export team/app $scratch/layout" "backup $scratch/backup"; do
    # shellcheck disable=SC2086 # words of a verb
    succeeds "registry-server $verb as root" registry $verb
done
[[ -z $(find "$data" "$config" -user root) ]] || fail "root left: $(find "$data" "$config" -user root)"
ok "root left no file of its own"
stop_both
start_both berth-auth berth-registry
succeeds "both start again, and a sign-in goes on" sign_in_by_registry
stop_both
mkdir "$scratch/before"
mv "$data/registry"/registry.db* "$data/registry/objects" "$scratch/before"
succeeds "registry-server restore as root" registry restore "$scratch/backup"
[[ -z $(find "$data/registry" ! -user berth-registry) ]] || fail "the restore left files of others"
start_both berth-auth berth-registry
is_served() { registry list | grep --quiet team/app; }
succeeds "and what it restored is served" is_served
stop_both

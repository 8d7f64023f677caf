#!/usr/bin/env bash
# Gives each of Berth's two servers a user of its own, and to each what is its own. For a new installation made by root,
# and for one whose servers both ran as `berth`. What is done already is left as it is, so it can be typed again.
#
#   split-users.sh [--dry-run] [--data DIR] [--config-dir DIR]
#
# Both servers must be stopped. It tells each step.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

data=/var/lib/berth config=/etc/berth dry=
while (($#)); do
    case $1 in
        --dry-run) dry=1 ;;
        --data) data=${2:?says no directory} && shift ;;
        --config-dir) config=${2:?says no directory} && shift ;;
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0" && exit ;;
        *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift
done

refuse() {
    printf 'split-users.sh: %s\n' "$*" >&2
    exit 1
}

# begin WORDS COMMAND...: does it, or says what it would do.
steps=0
begin() {
    local words=$1
    shift
    steps=$((steps + 1))
    printf '%s%s\n' "${dry:+would }" "$words"
    [[ -n $dry ]] || "$@"
}

[[ $(id -u) -eq 0 ]] || refuse "only root can give files to another user"
[[ -e $config/auth.toml && -e $config/registry.toml || -L $config/auth.toml || -L $config/registry.toml ]] ||
    refuse "there are no settings in $config: authctl init --split --data $data --config-dir $config"
for dir in "$data" "$config" "$data"/{auth,registry,run,certs,ca}; do
    # Whoever owns what is above could have put it there, and would be given what it leads to.
    [[ ! -L $dir ]] || refuse "$dir is a link: name the directory itself"
done
# The owner of the directory could have made them lead to a file of root's, which would be read and given away.
for file in "$config"/{auth,registry}.toml; do
    [[ ! -L $file && -f $file && $(stat --format %h "$file") == 1 ]] ||
        refuse "$file is a link, has another name, or is no file: put the settings themselves there"
done
for dir in "$data"/{auth,registry,run}; do
    [[ -d $dir ]] || refuse "$dir is missing: this is no installation of authctl init --split"
done

# as_owner DIR COMMAND...: as whoever owns the directory: what is planted in it leads nowhere where its owner could not go,
# and what never answers is not waited for.
as_owner() {
    local uid gid groups=--clear-groups
    read -r uid gid < <(stat --format '%u %g' "$1")
    if getent passwd "$uid" >/dev/null; then
        gid=$(id --group "$uid") groups=--init-groups
    fi
    setpriv --reuid "$uid" --regid "$gid" "$groups" timeout 20 "${@:2}"
}

# The servers lock their data for as long as they run.
for lock in "$data"/{auth,registry}/lock; do
    if [[ -f $lock && ! -L $lock ]] && ! as_owner "${lock%/*}" flock --nonblock "$lock" true; then
        refuse "a server runs: systemctl stop berth-registry berth-auth"
    fi
done

# Nobody is to move anything while it is given away.
for uid in $(stat --format %u "$data" "$data"/{auth,registry} | sort --unique); do
    if ((uid)) && grep --quiet --no-messages --extended-regexp "^Uid:[[:space:]]+$uid[[:space:]]" /proc/[0-9]*/status; then
        refuse "a process of the user $uid runs: it owns what is to be given away, so end it first"
    fi
done

make_user() {
    useradd --system --user-group --home-dir "$data" --no-create-home --shell /usr/sbin/nologin "$1"
}
getent group berth >/dev/null || begin "make the group berth" groupadd --system berth
for user in berth-auth berth-registry; do
    getent passwd "$user" >/dev/null || begin "make the user $user" make_user "$user"
    if ! id --name --groups "$user" 2>/dev/null | tr ' ' '\n' | grep --quiet --line-regexp berth; then
        begin "put $user into the group berth" usermod --append --groups berth "$user"
    fi
done

# owned FILE OWNER:GROUP MODE: one file or directory.
owned() {
    local path=$1 owner=$2 mode=$3
    [[ -e $path || -L $path ]] || return 0
    # What a link leads to is somebody's own, such as another program's certificate.
    if [[ -L $path ]]; then
        printf 'left %s as it is, a link: its target must be readable by %s\n' "$path" "$owner"
        return
    fi
    # The same of a file that lies elsewhere too, by a hard link.
    if [[ ! -d $path && $(stat --format %h "$path") != 1 ]]; then
        printf 'left %s as it is, a file with another name: it must be readable by %s\n' "$path" "$owner"
        return
    fi
    [[ $(stat --format %U:%G "$path") == "$owner" ]] || begin "give $path to $owner" chown --no-dereference "$owner" "$path"
    [[ $(stat --format %a "$path") == "$mode" ]] || begin "set the mode of $path to $mode" chmod "$mode" "$path"
}

# tree DIR OWNER:GROUP: the directory with all that its owner has in it. Files of others are not Berth's: hard links that an
# import made to the files of another registry, or that somebody put there.
tree() {
    local dir=$1 owner=$2 old
    [[ -d $dir ]] || return 0
    old=$(stat --format %u "$dir")
    if [[ $(stat --format %U "$dir") != "${owner%:*}" ]]; then
        begin "give all of $dir to $owner" chown --recursive --no-dereference --from="$old" "$owner" "$dir"
    fi
}

# The directory itself is given last, so that a run that was cut off is gone on with by the next.
tree "$data/auth" berth-auth:berth-auth
tree "$data/ca" berth-auth:berth-auth
tree "$data/registry" berth-registry:berth-registry
tree "$data/certs" berth-auth:berth
tree "$data/run" berth-auth:berth
tree "$config" berth-auth:berth
owned "$data/auth" berth-auth:berth-auth 700
owned "$data/ca" berth-auth:berth-auth 700
owned "$data/registry" berth-registry:berth-registry 700
# What both use belongs to berth-auth, which writes it, and is open to the group. In a directory with the set-group-ID
# bit what is made later is the group's too.
owned "$data/certs/server.pem" berth-auth:berth 644
owned "$data/certs/ca.pem" berth-auth:berth 644
owned "$data/certs/server.key" berth-auth:berth 640
owned "$data/certs" berth-auth:berth 2750
owned "$data/run" berth-auth:berth 2750
owned "$config/auth.toml" berth-auth:berth-auth 600
owned "$config/registry.toml" berth-auth:berth 640
owned "$config" berth-auth:berth 750
owned "$data" berth-auth:berth 750

# add_socket_group FILE: run as the owner of its directory.
add_socket_group() {
    local file=$1 fresh
    fresh=$(mktemp "$file.XXXXXX")
    # Before the first table: behind it the line would be a key of that.
    awk 'BEGIN { print "# registry-server runs as a user of its own, in this group.\nsocket_group = \"berth\"\n" } { print }' \
        "$file" >"$fresh"
    chmod --reference="$file" "$fresh"
    mv --no-target-directory "$fresh" "$file"
}
has_socket_group() { as_owner "$config" grep --quiet --extended-regexp '^socket_group[[:space:]]*=' "$config/auth.toml"; }
# shellcheck disable=SC2016 # the inner shell expands it
has_socket_group || begin "write socket_group = \"berth\" into $config/auth.toml" \
    as_owner "$config" bash -euc "$(declare -f add_socket_group)"' && add_socket_group "$1"' _ "$config/auth.toml"

((steps)) || echo "nothing is missing"
if getent passwd berth >/dev/null; then
    echo "the user berth is not needed any more: once all is well, userdel berth (its group stays, with two members)"
fi

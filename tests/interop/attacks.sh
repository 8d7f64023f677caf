#!/usr/bin/env bash
# What the service's own user, or anybody with a directory of their own, can plant for root's verbs to follow: links in the
# place of directories, databases and files, before the verb is typed and while it runs. Nothing outside may be made, written or read.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

prepare() {
    need python3 python3
    need setpriv util-linux
    need_binaries
}

enter_sandbox prepare

# The service's user, as in the image.
service=10001
victim=$scratch/victim
old=$scratch/old
turns=${BERTH_TURNS:-10000}

# A python3 of root's own, as version managers install it, is nothing that user may run.
PATH=/usr/bin:$PATH

as_service() { setpriv --reuid "$service" --regid "$service" --clear-groups "$@"; }
registry_verb() { "$bin/registry-server" --config "$scratch/$1/registry.toml" "${@:2}"; }
authctl_verb() { "$bin/authctl" --config "$scratch/$1/auth.toml" "${@:2}"; }

# ---------------------------------------------------------------- what there is

# What only root may see or change.
make_victim() {
    mkdir -m 0700 "$victim"
    printf 'root:SECRET-HASH:19000\n' >"$victim/secret"
    : >"$victim/empty"
    mkdir "$victim/folder"
    chmod 0600 "$victim/secret" "$victim/empty"
    picture >"$scratch/victim-before"
}

# Its names, lengths, modes, owners, times and bytes.
picture() {
    find "$victim" -printf '%P %y %s %m %U %G %T@\n' | sort
    find "$victim" -type f -exec sha256sum {} + | sort
}

unharmed() {
    picture | diff "$scratch/victim-before" - || fail "$1: what is root's was changed"
    ! grep --recursive --quiet SECRET-HASH "${@:2}" || fail "$1: what is root's was read"
    ok "$1: nothing of root's was made, written or read"
}

# make_old DIR: a store of registry:2 with an image of 40 layers.
make_old() {
    python3 - "$1/docker/registry/v2" <<'PY'
import hashlib, json, os, sys

def write(place, data):
    path = os.path.join(sys.argv[1], place)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)

def blob(data):
    name = hashlib.sha256(data).hexdigest()
    write(f"blobs/sha256/{name[:2]}/{name}/data", data)
    return {"mediaType": "application/octet-stream", "digest": "sha256:" + name, "size": len(data)}

blobs = [blob(f"layer {number}".encode()) for number in range(40)]
manifest = blob(json.dumps({"schemaVersion": 2, "config": blobs[0], "layers": blobs[1:]}).encode())
place = "repositories/team/app/_manifests"
write(f"{place}/revisions/sha256/{manifest['digest'][7:]}/link", manifest["digest"].encode())
write(f"{place}/tags/1/current/link", manifest["digest"].encode())
PY
}

# make_site NAME: settings and empty data directories, all the service's.
make_site() {
    local site=$scratch/$1
    rm -rf "$site"
    BERTH_DATA=$site BERTH_CERTS=$site/certs BERTH_HOST=$host BERTH_USER='' "$bin/authctl" init --no-user >/dev/null
    chown -R "$service:$service" "$site"
}

all_is_the_services() {
    local found
    found=$(find "$scratch/$1" ! -user "$service" -o ! -group "$service")
    [[ -z $found ]] || fail "not the server's: $found"
    ok "everything that root made in $1 belongs to its owner"
}

# ---------------------------------------------------------------- planted before

honest() {
    make_site site
    succeeds "import as root into the service's directory" registry_verb site import --copy "$old"
    succeeds "backup as root" registry_verb site backup "$scratch/backup"
    all_is_the_services site
    [[ -z $(find "$scratch/backup" ! -type f ! -type d) && $(stat -c %u "$scratch/backup/registry.db") == 0 ]] ||
        fail "the backup is not root's"
    [[ ! -e $scratch/site/registry/registry.db.backup ]] || fail "a copy of the database was left behind"
    make_site restored
    succeeds "restore as root" registry_verb restored restore "$scratch/backup"
    all_is_the_services restored
    succeeds "and it is whole" registry_verb restored verify
    mkdir "$scratch/theirs"
    chown "$service:$service" "$scratch/theirs"
    succeeds "backup as root into a directory of the service's" registry_verb site backup "$scratch/theirs"
    succeeds "export as root into another" registry_verb site export team/app:1 "$scratch/theirs/out/layout"
    all_is_the_services theirs
    succeeds "export as root into a directory of root's" registry_verb site export team/app "$scratch/layout"
    [[ -z $(find "$scratch/layout" ! -user 0) ]] || fail "the layout is not root's"
}

# The shards, which are 256 names below the ones that were looked at.
shards() {
    local what
    for what in "restore $scratch/backup" "import --copy $old" "import $old"; do
        make_site planted
        as_service mkdir -p "$scratch/planted/registry/objects"
        as_service bash -c 'for ((n = 0; n < 256; n++)); do ln -s "$2" "$1/$(printf %02x "$n")"; done' _ \
            "$scratch/planted/registry/objects" "$victim/folder"
        # shellcheck disable=SC2086 # a verb and its arguments
        refused "shards that are links: $what" 'symbolic link' registry_verb planted $what
    done
    unharmed "shards that are links" "$scratch/planted" "$scratch/backup"
}

# plant_object SITE: removes an object, prints where it lay, and has the database say that it is as long as the secret.
plant_object() {
    as_service python3 - "$scratch/$1/registry" <<'PY'
import os, sqlite3, sys

data = sys.argv[1]
with sqlite3.connect(f"{data}/registry.db") as database:
    location, = database.execute("SELECT location FROM blobs ORDER BY digest LIMIT 1").fetchone()
    database.execute("UPDATE blobs SET size = 23 WHERE location = ?", [location])
os.remove(f"{data}/objects/{location[:2]}/{location}")
print(f"{data}/objects/{location[:2]}/{location}")
PY
}

# What cannot be read is skipped and told, what is no file is damaged.
not_sound() { { registry_verb planted verify --repair 2>&1 || true; } | grep --extended-regexp 'Permission denied|^damaged'; }

objects() {
    local kind object
    for kind in symbolic hard pipe; do
        make_site planted
        succeeds "import" registry_verb planted import --copy "$old"
        object=$(plant_object planted)
        case $kind in
        symbolic) as_service ln -s "$victim/secret" "$object" ;;
        # As on a system that protects no hard links; no length would be right for a pipe.
        hard) ln "$victim/secret" "$object" ;;
        pipe) as_service mkfifo "$object" ;;
        esac
        says "$kind: backup tells the object" 1 'its object is missing' registry_verb planted backup "$scratch/spoilt-$kind"
        says "$kind: export tells it" 1 'left out|Permission denied' registry_verb planted export team/app:1 "$scratch/out-$kind"
        succeeds "$kind: verify --repair takes it for sound nowhere" not_sound
        rm "$object"
        make_site again
        says "$kind: restore of that backup" 1 'damaged' registry_verb again restore "$scratch/spoilt-$kind"
        unharmed "an object that is a $kind link" "$scratch/planted" "$scratch/again" "$scratch/spoilt-$kind" "$scratch/out-$kind"
    done
}

# A hard link in a store that is given up would be given away.
adopted() {
    local data
    make_site planted
    make_old "$scratch/traps"
    data=$(find "$scratch/traps" -name data -size -12c -print -quit)
    printf 'root says' >"$scratch/roots"
    chmod 0644 "$scratch/roots"
    chown -R "$service" "$scratch/traps"
    ln -f "$scratch/roots" "$data"
    says "import --adopt of a third one's file" 1 'belongs neither' registry_verb planted import --adopt "$scratch/traps"
    [[ $(stat -c %u "$scratch/roots") == 0 ]] || fail "a file of root's was given away"
    ok "import --adopt gives away nothing of root's"
}

# The database is made under a name that can be guessed.
databases() {
    make_site planted
    as_service ln -s "$victim/secret" "$scratch/planted/registry/registry.db.restoring"
    succeeds "restore with a link in the place of the database" registry_verb planted restore "$scratch/backup"
    all_is_the_services planted
    make_site planted
    as_service ln -s "$victim/empty" "$scratch/planted/registry/registry.db"
    refused "list of a database that is a link" 'symbolic link' registry_verb planted list
    refused "backup of one" 'symbolic link' registry_verb planted backup "$scratch/none"
    unharmed "a registry's database that is a link" "$scratch/planted"
}

add_mallory() { authctl_verb planted user add mallory --password-stdin <<<"a password of mallory's"; }

authctls() {
    local name
    for name in secret empty; do
        make_site planted
        as_service ln -sf "$victim/$name" "$scratch/planted/auth/auth.db"
        refused "authctl on a database that is a link" 'symbolic link' add_mallory
    done
    make_site planted
    as_service ln -sf "$victim/secret" "$scratch/planted/htpasswd"
    as_service ln -sf "$victim/made" "$scratch/planted/htpasswd.lock"
    refused "authctl with users that are a link" 'locking' add_mallory
    as_service rm "$scratch/planted/htpasswd.lock"
    refused "authctl with users that are root's" 'denied' add_mallory
    make_site planted
    local mode
    for mode in o+w g+w; do
        chmod 0600 "$scratch/planted/auth.toml" "$scratch/planted/registry.toml"
        chgrp nogroup "$scratch/planted/auth.toml" "$scratch/planted/registry.toml"
        chmod "$mode" "$scratch/planted/auth.toml" "$scratch/planted/registry.toml"
        refused "authctl with settings that others may write ($mode)" 'chmod go-w' authctl_verb planted grants
        refused "restore with such settings" 'chmod go-w' registry_verb planted restore "$scratch/backup"
    done
    local data
    for data in "$victim/folder" "$victim/missing"; do
        make_site planted
        as_service sed -i "s|^data = .*|data = \"$data\"|" "$scratch/planted/auth.toml" "$scratch/planted/registry.toml"
        refused "authctl with settings of the service's that name $data" "written by user $service" authctl_verb planted grants
        refused "restore with such settings" "written by user $service" registry_verb planted restore "$scratch/backup"
    done
    make_site planted
    rm -r "$scratch/planted/auth"
    as_service ln -s "$victim/folder" "$scratch/planted/auth"
    refused "authctl on a directory that is a link" 'symbolic link' authctl_verb planted grants
    unharmed "what authctl is led to" "$scratch/planted"
}

triggers() {
    cp -a "$scratch/backup" "$scratch/triggered"
    python3 - "$scratch/triggered/registry.db" <<'PY'
import sqlite3, sys

with sqlite3.connect(sys.argv[1]) as database:
    database.execute("CREATE TRIGGER planted AFTER INSERT ON tags BEGIN DELETE FROM tags; END")
PY
    make_site planted
    refused "restore of a database with a trigger" 'has a trigger "planted"' registry_verb planted restore "$scratch/triggered"
    [[ ! -e $scratch/planted/registry/registry.db ]] || fail "it is there all the same"
}

# ---------------------------------------------------------------- planted meanwhile

# swap SITE: turns names in the site's directories into links, and back, $turns times.
swap() {
    cat >"$scratch/swap.py" <<'PY'
import os, random, sys, time

turns, site, victim = int(sys.argv[1]), sys.argv[2], sys.argv[3]
folders = [f"registry/objects/{number:02x}" for number in range(256)] + ["registry/objects", "registry", "auth"]
files = [
    "registry/registry.db", "registry/registry.db-wal", "registry/registry.db-journal", "registry/registry.db.restoring",
    "registry/registry.db.backup", "registry/lock", "auth/auth.db", "auth/auth.db-wal", "auth/auth.db.lock", "auth/lock",
    "htpasswd", "htpasswd.lock", "auth.toml", "theirs/registry.db.new", "theirs/backup.lock", "theirs/backup.json.new",
]
done = 0
while done < turns:
    name = os.path.join(site, random.choice(folders if random.random() < 0.6 else files))
    target = random.choice([f"{victim}/folder", victim, f"{victim}/secret", f"{victim}/empty", f"{victim}/made"])
    try:
        os.symlink(target, f"{site}/link")
        moved = os.path.lexists(name)
        if moved:
            os.rename(name, f"{site}/aside")
        os.rename(f"{site}/link", name)
        done += 1
        time.sleep(0.001)
        os.remove(name)
        if moved:
            os.rename(f"{site}/aside", name)
        time.sleep(0.001)
    except OSError:
        # Root's verb was in between: whatever it has made there stays, and what was put aside goes back.
        for put_back in (lambda: os.remove(f"{site}/link"), lambda: os.rename(f"{site}/aside", name)):
            try:
                put_back()
            except OSError:
                pass
PY
    as_service python3 "$scratch/swap.py" "$turns" "$scratch/$1" "$victim"
}

# meanwhile COMMAND...: it may be refused, or be done, and must do nothing else.
meanwhile() {
    if timeout 60 "$@" >/dev/null 2>&1; then verbs_done=$((verbs_done + 1)); else verbs_refused=$((verbs_refused + 1)); fi
}

# Root's verbs one after another.
verbs_meanwhile() {
    local rounds=0 verbs_done=0 verbs_refused=0
    while kill -0 "${pid_of[swap]}" 2>/dev/null; do
        meanwhile "$bin/registry-server" --config "$scratch/raced.toml" restore "$scratch/backup"
        meanwhile "$bin/registry-server" --config "$scratch/raced.toml" import --copy "$old"
        meanwhile "$bin/registry-server" --config "$scratch/raced.toml" backup "$scratch/raced/theirs"
        meanwhile "$bin/registry-server" --config "$scratch/raced.toml" backup "$scratch/raced-backup"
        meanwhile "$bin/registry-server" --config "$scratch/raced.toml" export team/app:1 "$scratch/raced-layout"
        meanwhile "$bin/authctl" --config "$scratch/raced/auth.toml" user add "mallory$rounds" --password-stdin <<<"a password of mallory's"
        meanwhile "$bin/authctl" --config "$scratch/raced-auth.toml" grant "mallory$rounds" 'a/**:pull'
        as_service rm -rf "$scratch/raced/registry/registry.db" "$scratch/raced/registry/registry.db-wal" 2>/dev/null || true
        rounds=$((rounds + 1))
    done
    note "$rounds rounds of root's verbs: $verbs_done were done, $verbs_refused refused"
    ((verbs_done > 0)) || fail "root's verbs were all refused, so that nothing is shown"
}

races() {
    make_site raced
    as_service mkdir "$scratch/raced/theirs"
    sed "s|^data = .*|data = \"$scratch/raced/registry\"|" "$scratch/raced/registry.toml" >"$scratch/raced.toml"
    sed -e "s|^data = .*|data = \"$scratch/raced/auth\"|" -e "s|^htpasswd = .*|htpasswd = \"$scratch/raced/htpasswd\"|" \
        "$scratch/raced/auth.toml" >"$scratch/raced-auth.toml"
    start swap swap raced
    verbs_meanwhile
    stop swap || fail "the attacker broke off: $(tail -n 1 "$scratch/logs/swap.log")"
    mkdir -p "$scratch/raced-backup" "$scratch/raced-layout"
    unharmed "$turns turns of a race" "$scratch/raced" "$scratch/raced-backup" "$scratch/raced-layout"
}

# ----------------------------------------------------------------

chmod 0755 "$scratch"
make_victim
make_old "$old"
honest
shards
objects
adopted
databases
authctls
triggers
races

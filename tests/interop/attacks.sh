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

# shellcheck source=tests/interop/victim.sh
. "$(dirname "$0")/victim.sh"

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

# ends WORDS REASON COMMAND...: it is refused for that reason, in little memory and without waiting, and tells nothing of root's.
ends() {
    local words=$1 reason=$2 status=0
    shift 2
    (ulimit -v 8000000 && exec timeout 20 "$@") </dev/null >"$scratch/ends.out" 2>&1 || status=$?
    if ((status != 1)) || ! grep --quiet --extended-regexp "$reason" "$scratch/ends.out" || grep --quiet SECRET "$scratch/ends.out"; then
        fail "$words: exit $status: $(head -c 300 "$scratch/ends.out")"
    fi
    ok "$words"
}

# Settings that are a link, a pipe or endless, or that anybody may write: to each kind of verb.
settings() {
    local kind verb reason settings
    for kind in link hard pipe zeros long open; do
        make_site planted
        for settings in "$scratch/planted"/{auth,registry}.toml; do
            [[ $kind == open ]] || rm "$settings"
            case $kind in
            link) reason='symbolic link' && as_service ln -s "$victim/secret" "$settings" ;;
            hard) reason='Permission denied' && ln "$victim/secret" "$settings" ;;
            pipe) reason='no regular file' && as_service mkfifo "$settings" ;;
            zeros) reason='symbolic link' && as_service ln -s /dev/zero "$settings" ;;
            long) reason='more than 1048576 bytes' && as_service truncate --size 8G "$settings" ;;
            open) reason='chmod go-w' && chmod 0666 "$settings" ;;
            esac
        done
        for verb in health "read-only on" "gc" list "backup $scratch/none" "restore $scratch/backup"; do
            # shellcheck disable=SC2086 # a verb and its arguments
            ends "settings, $kind: registry-server $verb" "$reason" \
                "$bin/registry-server" --config "$scratch/planted/registry.toml" $verb
        done
        for verb in grants "user list" "key list" "cert renew" "backup $scratch/none"; do
            # shellcheck disable=SC2086
            ends "settings, $kind: authctl $verb" "$reason" "$bin/authctl" --config "$scratch/planted/auth.toml" $verb
        done
        ends "settings, $kind: auth-server health" "$reason" "$bin/auth-server" --config "$scratch/planted/auth.toml" health
        [[ $kind != hard ]] || rm "$scratch/planted"/{auth,registry}.toml
    done
    make_site planted
    # Relative paths are meant from where the link lies.
    as_service sed -i "s|^data = .*|data = \"$scratch/planted/registry\"|" "$scratch/planted/registry.toml"
    ln -s "$scratch/planted/registry.toml" "$scratch/roots.toml"
    succeeds "settings as they should be" registry_verb planted import --copy "$old"
    succeeds "by a link of root's own too" "$bin/registry-server" --config "$scratch/roots.toml" list
    unharmed "settings that are none" "$scratch/planted"
}

# planted_at NAME REASON COMMAND...: with a pipe in its place, and with a link to what has no end.
planted_at() {
    local name=$1 reason=$2 kind at=$scratch/planted/$1
    shift 2
    [[ ! -e $at ]] || mv "$at" "$at.aside"
    for kind in pipe zeros; do
        if [[ $kind == pipe ]]; then as_service mkfifo "$at"; else as_service ln -s /dev/zero "$at"; fi
        ends "$name, $kind: ${*:4}" "$reason" "$@"
        rm "$at"
    done
    [[ ! -e $at.aside ]] || mv "$at.aside" "$at"
}

# What else verbs open by its name in the service's directories.
pipes() {
    local refusal='no regular file|symbolic link|too many|denied' name
    make_site planted
    succeeds "a user" add_mallory
    succeeds "an import" registry_verb planted import --copy "$old"
    local ctl=("$bin/authctl" --config "$scratch/planted/auth.toml")
    local registry=("$bin/registry-server" --config "$scratch/planted/registry.toml")
    for name in htpasswd htpasswd.lock auth/auth.db.lock auth/auth.db{,-journal,-wal,-shm}; do
        planted_at "$name" "$refusal" "${ctl[@]}" user remove mallory
    done
    planted_at auth/keys.lock "$refusal" "${ctl[@]}" key rotate
    planted_at auth/keys/states.json "$refusal" "${ctl[@]}" key list
    for name in server.pem server.key ca.pem ca.key; do
        planted_at "certs/$name" "$refusal" "${ctl[@]}" cert renew
    done
    for name in lock registry.db{,-journal,-wal,-shm}; do
        planted_at "registry/$name" "$refusal" "${registry[@]}" gc --dry-run
        planted_at "registry/$name" "$refusal" "${registry[@]}" backup "$scratch/none"
    done
    succeeds "with all in its place a verb works" "${registry[@]}" list
    unharmed "what is no file" "$scratch/planted"
}

# A socket of root's behind a link hears nothing, and what one of the service's says is one line.
sockets() {
    local verb log=$scratch/logs/roots-socket.log
    make_site planted
    mkdir -m 0700 "$scratch/closed"
    cat >"$scratch/listens.py" <<'PY'
import socket, sys

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
while True:
    connection, _ = listener.accept()
    request = connection.recv(4096).split(b"\r\n")[0].decode()
    print("asked:", request, flush=True)
    body = b'{"event":"failed","message":"no\\nall is well\\u001b[2J"}\n' if "/jobs" in request else b"no\nall is well\x1b[2J"
    connection.sendall(b"HTTP/1.1 503 No\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    connection.close()
PY
    start roots-socket python3 "$scratch/listens.py" "$scratch/closed/socket"
    wait_for 10 "a socket of root's" test -S "$scratch/closed/socket"
    as_service ln -s "$scratch/closed/socket" "$scratch/planted/registry/registry.sock"
    as_service mkdir -p "$scratch/planted/run"
    as_service ln -s "$scratch/closed/socket" "$scratch/planted/run/auth.sock"
    for verb in "read-only on" health; do
        # shellcheck disable=SC2086 # a verb and its arguments
        ends "a link to a socket of root's: registry-server $verb" 'no server runs|denied' \
            "$bin/registry-server" --config "$scratch/planted/registry.toml" $verb
    done
    ends "a link to a socket of root's: auth-server health" 'denied' \
        "$bin/auth-server" --config "$scratch/planted/auth.toml" health
    ! grep --quiet asked "$log" || fail "root's socket was asked: $(cat "$log")"
    ok "root's socket heard nothing"
    stop roots-socket || true
    rm "$scratch/planted/registry/registry.sock"
    start their-socket setpriv --reuid "$service" --regid "$service" --clear-groups \
        python3 "$scratch/listens.py" "$scratch/planted/registry/registry.sock"
    wait_for 10 "a socket of the service's" test -S "$scratch/planted/registry/registry.sock"
    for verb in "read-only on" health; do
        # shellcheck disable=SC2086
        ends "what a socket says is one line: $verb" 'no.*n.*all is well' \
            "$bin/registry-server" --config "$scratch/planted/registry.toml" $verb
        [[ $(wc -l <"$scratch/ends.out") == 1 ]] || fail "these are several: $(cat "$scratch/ends.out")"
        ! grep --quiet $'\e' "$scratch/ends.out" || fail "the terminal would obey"
    done
    stop their-socket || true
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
settings
pipes
sockets
triggers
races

# shellcheck shell=bash disable=SC2154
# Sourced by attacks.sh: what only root may see or change, and what the service's user has.

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

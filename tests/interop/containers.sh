# shellcheck shell=bash
# Sourced by the scripts for podman, buildah and skopeo, which keep their images, settings and passwords in the same places.
# It brings stack.sh along.

# shellcheck source=tests/interop/stack.sh
declare -F start_berth >/dev/null || . "$(dirname "${BASH_SOURCE[0]}")/stack.sh"

# furnish_containers: places of the sandbox's own. overlayfs and systemd are not to be had in every container.
furnish_containers() {
    in_sandbox || fail "podman's settings are changed in the sandbox only"
    mkdir -p "$scratch/containers" "$scratch/home"
    mount --bind "$scratch/containers" /var/lib/containers
    # Logins go to /run/containers/0/auth.json, on the sandbox's own /run.
    export HOME=$scratch/home
    unset REGISTRY_AUTH_FILE XDG_RUNTIME_DIR XDG_CONFIG_HOME XDG_DATA_HOME CONTAINER_HOST CONTAINERS_CONF CONTAINERS_STORAGE_CONF
    export BUILDAH_ISOLATION=chroot
    mkdir -p /etc/containers
    printf '[storage]\ndriver = "vfs"\ngraphroot = "/var/lib/containers/storage"\nrunroot = "/run/containers/storage"\n' \
        >/etc/containers/storage.conf
    printf '[engine]\nevents_logger = "file"\ncgroup_manager = "cgroupfs"\nlock_type = "file"\n' >/etc/containers/containers.conf
}

# version_of PROGRAM: skopeo, podman and buildah put it third.
version_of() { "$1" --version | awk '{ print $3 }'; }

# The mount point, which has to be there before the sandbox.
make_containers_place() { mkdir -p /var/lib/containers; }

# without_login COMMAND...: as another user of this machine, who never signed in.
without_login() {
    printf '{}\n' >"$scratch/home/nobody.json"
    REGISTRY_AUTH_FILE=$scratch/home/nobody.json "$@"
}

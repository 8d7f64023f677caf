#!/usr/bin/env bash
# Makes target/interop/base-CODENAME.tar, the file system of a minimal Debian, and prints its path.
# The Dockerfile is tested on it, since no image is pulled from the internet. Made once, then kept.
# It is the Debian that this machine runs, so that binaries compiled here find their C library.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
tar_file=$root/target/interop/base-${codename:-none}.tar

# The mirror that apt uses here; debootstrap has its own default where there is none.
mirror() {
    # shellcheck disable=SC2016  # these are apt's own variables
    apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        awk -v codename="$codename" '$2 == codename && $3 == "main" && !found { print $1; found = 1 }'
}

if [[ -s $tar_file ]]; then
    printf '%s\n' "$tar_file"
    exit 0
fi

need_root >&2
need debootstrap debootstrap >&2
[[ -e /usr/share/debootstrap/scripts/$codename ]] || skip "debootstrap does not know '$codename'" >&2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
note "making a base image with debootstrap (once; half a minute)" >&2
# shellcheck disable=SC2046  # no mirror is no argument
debootstrap --variant=minbase "$codename" "$work/base" $(mirror) >"$work/log" 2>&1 || {
    tail -n 5 "$work/log" | indent >&2
    skip "debootstrap could not fetch its packages" >&2
}
mkdir -p "$(dirname "$tar_file")"
tar --create --file "$work/base.tar" --directory "$work/base" \
    --exclude=./var/cache/apt --exclude=./var/lib/apt/lists --exclude=./dev \
    --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale .
mv "$work/base.tar" "$tar_file.partial"
mv "$tar_file.partial" "$tar_file"
printf '%s\n' "$tar_file"

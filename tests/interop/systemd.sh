#!/usr/bin/env bash
# The units of deploy/systemd: systemd-analyze finds nothing wrong with them, and the lines of its README work:
# typed in a sandbox, they leave two servers that run by the units' own ExecStart lines, each as its own user.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"

prepare() {
    need systemd-analyze systemd
    need ip iproute2
    need curl curl
    need_binaries
}

enter_sandbox prepare

units=$root/deploy/systemd

# The README's lines write here: under the sandbox's own /usr/local/bin and /var/lib.
for dir in /usr/local/bin /var/lib; do
    mount -t tmpfs -o mode=0755 sandbox "$dir"
done

# The lines of the README's first block that do not speak to a running systemd, for the binaries under test.
readme_lines() {
    awk '/^```/ { block++; next } block == 1' "$units/README.md" |
        sed -e "s|target/release/|$bin/|g" -e "s|deploy/systemd/|$units/|g" | grep -v '^systemctl'
}

type_readme_lines() { bash -euc "$(readme_lines)"; }

# exec_start UNIT: the command that systemd would run.
exec_start() { sed -n 's/^ExecStart=//p' "$units/$1"; }

# unit_setting UNIT KEY
unit_setting() { sed -n "s/^$2=//p" "$units/$1"; }

# start_unit NAME UNIT: as the unit's user, with the one capability that the unit gives.
start_unit() {
    local command
    read -ra command <<<"$(exec_start "$2")"
    start "$1" setpriv --reuid "$(unit_setting "$2" User)" --regid "$(unit_setting "$2" Group)" --init-groups \
        --no-new-privs --inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service "${command[@]}"
}

# as USER COMMAND...
as() { setpriv --reuid "$1" --regid "$1" --init-groups "${@:2}"; }

exposure() { systemd-analyze security --offline=true --threshold=20 --no-pager "$units/$1"; }

succeeds "the README's lines install and set up Berth" type_readme_lines
for unit in berth-auth.service berth-registry.service; do
    succeeds "systemd-analyze verify $unit" systemd-analyze verify --man=no "/etc/systemd/system/$unit"
    [[ -z $output ]] || fail "systemd-analyze warns: $output"
done
for unit in berth-auth.service berth-registry.service; do
    succeeds "systemd-analyze security finds $unit well confined" exposure "$unit"
done
# setting KEY: what auth.toml says in [certificates].
setting() { sed -n "/^\[certificates\]/,\$ s/^$1 = \"\(.*\)\"/\1/p" /etc/berth/auth.toml; }
may_renew() {
    local writable
    writable=$(sed -n 's/^ReadWritePaths=//p' "$units/berth-auth.service")
    [[ -f $(setting ca)/ca.key && " $writable " == *" -$(setting directory) "* ]] &&
        ! grep --fixed-strings "InaccessiblePaths=" "$units/berth-auth.service" | grep --fixed-strings "$(setting ca)"
}
succeeds "berth-auth.service may read the CA's key and write the certificate that auth.toml names" may_renew
confined() {
    local unit
    for unit in berth-auth berth-registry; do
        [[ $(unit_setting "$unit.service" User) == "$unit" && $(unit_setting "$unit.service" Group) == "$unit" ]] &&
            [[ $(unit_setting "$unit.service" SupplementaryGroups) == berth ]] &&
            [[ $(unit_setting "$unit.service" LimitCORE) == 0 ]] || return 1
    done
}
succeeds "each unit has a user of its own, the group of the socket, and leaves no core" confined
start_unit auth-server berth-auth.service
start_unit registry-server berth-registry.service
wait_for 30 "auth-server to be healthy" as berth-auth auth-server health
wait_for 30 "registry-server to be healthy" as berth-registry registry-server health
ok "both ExecStart lines run as berth-auth and berth-registry, and both servers say that they are healthy"
succeeds "the registry answers on port 443 under its certificate" \
    curl --silent --show-error --cacert /var/lib/berth/ca/ca.pem "https://$host/v2/"

#!/usr/bin/env bash
# How many tokens auth-server gives in a second: with a password that it remembers, with a robot's
# secret, and with every password hashed. Beside it docker_auth, in turns in the same run, where DOCKER_AUTH names its
# program. Called by `make bench`; prints a table.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
# shellcheck source=bench/lib.sh
. bench/lib.sh

readonly ROUNDS=${BENCH_LOADS:-3} SECONDS_EACH=${BENCH_LOAD_SECONDS:-8}
readonly PASSWORD=bench-password CONNECTIONS=${BENCH_CONNECTIONS:-64}
# As many sign-ins with a hash as one network may have waiting: more are turned away.
readonly HASHED=${BENCH_HASHED_CONNECTIONS:-8}
# Equal logins that arrive together are checked once, so those that are to be hashed are of more
# users than there are connections.
readonly USERS=256

hash_at() { htpasswd -nbBC "$1" andrew "$PASSWORD" | head -n 1 | cut -d: -f2; }

# The users of the table: one to remember, and many at either cost.
users() {
    local ten five n
    ten=$(hash_at 10) five=$(hash_at 5)
    echo "andrew:$ten"
    for n in $(seq "$USERS"); do printf 'ten%s:%s\nfive%s:%s\n' "$n" "$ten" "$n" "$five"; done
}

# Requests of many users in turn, each of wrk's threads from another one on.
script() { # prefix of the names
    local n
    echo "local shown = {"
    for n in $(seq "$USERS"); do printf '"Basic %s",\n' "$(printf %s "$1$n:$PASSWORD" | base64 -w0)"; done
    cat <<'LUA'
}
local threads = 0
function setup(thread)
    thread:set("at", threads * 128)
    threads = threads + 1
end
function request()
    at = at % #shown + 1
    return wrk.format("GET", nil, { Authorization = shown[at] })
end
LUA
}

start_berth() { # name, lines for [limits]
    local site=$work/$1 port
    port=$(free_port)
    BERTH_DATA=$site BERTH_CERTS=$work/certs BERTH_HOST=localhost BERTH_PORT=$port \
        BERTH_USER=andrew BERTH_PASSWORD=$PASSWORD "$BIN/authctl" init --listen "127.0.0.1:$port" >/dev/null
    users >"$site/htpasswd"
    "$BIN/authctl" --config "$site/auth.toml" grant everyone 'bench/**:pull,push' >/dev/null
    sed -i 's/^log = .*/log = "warn"/' "$site/auth.toml" "$site/registry.toml"
    direct=$(free_port)
    cat >>"$site/auth.toml" <<TOML
[public]
listen = "127.0.0.1:$direct"
certificate = "$work/certs/server.pem"
key = "$work/certs/server.key"
[limits]
$2
TOML
    "$BIN/auth-server" --config "$site/auth.toml" 2>"$work/$1-auth.log" &
    pids+=($!)
    "$BIN/registry-server" --config "$site/registry.toml" 2>"$work/$1-registry.log" &
    pids+=($!)
    until "$BIN/registry-server" --config "$site/registry.toml" health 2>/dev/null; do sleep 0.1; done
    through=https://localhost:$port/token direct=https://localhost:$direct/token
}

start_peer() { # cost
    local port
    port=$(free_port)
    {
        printf 'server: {addr: "127.0.0.1:%s", certificate: %s, key: %s}\n' \
            "$port" "$work/certs/server.pem" "$work/certs/server.key"
        printf 'token: {issuer: bench, expiration: 900}\nusers:\n  andrew: {password: "%s"}\n' "$(hash_at "$1")"
        printf 'acl: [{match: {account: andrew}, actions: ["*"]}]\n'
    } >"$work/peer$1.yml"
    "$DOCKER_AUTH" "$work/peer$1.yml" >"$work/peer$1.log" 2>&1 &
    pids+=($!)
    peer=https://localhost:$port/auth
    until_answers "$peer"
}

load() { # address, connections, wrk's options...
    local address=$1 connections=$2
    shift 2
    # The hash of a password takes tens of milliseconds, and all connections wait for the same cores.
    wrk -t2 -c"$connections" -d"${SECONDS_EACH}s" --timeout 30s "$@" \
        "$address?service=berth&scope=repository:bench/app:pull,push" >"$work/wrk.out"
    if grep -q 'Non-2xx\|Socket errors' "$work/wrk.out"; then
        cat "$work/wrk.out" >&2
        return 1
    fi
    sed -n 's/^Requests\/sec: *//p' "$work/wrk.out"
}

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

one=(-H "Authorization: Basic $(printf %s "andrew:$PASSWORD" | base64 -w0)")
script ten >"$work/ten.lua"
script five >"$work/five.lua"
start_berth warm ""
warm=$through warm_direct=$direct
secret=$("$BIN/authctl" --config "$work/warm/auth.toml" --json robot create ci --grant 'bench/**:pull,push' |
    sed -n 's/.*"secret": *"\([^"]*\)".*/\1/p')
robot=(-H "Authorization: Basic $(printf %s "robot.ci:$secret" | base64 -w0)")
start_berth cold "password_cache_secs = 0"
cold=$through
if [ -n "${DOCKER_AUTH:-}" ]; then
    start_peer 10
    peer10=$peer
    start_peer 5
    peer5=$peer
fi

for round in $(seq "$ROUNDS"); do
    took=$(load "$warm" "$CONNECTIONS" "${one[@]}"); echo "$took" >>"$work/through"
    took=$(load "$warm_direct" "$CONNECTIONS" "${one[@]}"); echo "$took" >>"$work/direct"
    took=$(load "$warm_direct" "$CONNECTIONS" "${robot[@]}"); echo "$took" >>"$work/robot"
    took=$(load "$cold" "$HASHED" -s "$work/ten.lua"); echo "$took" >>"$work/cold10"
    took=$(load "$cold" "$HASHED" -s "$work/five.lua"); echo "$took" >>"$work/cold5"
    if [ -n "${DOCKER_AUTH:-}" ]; then
        took=$(load "$peer10" "$HASHED" "${one[@]}"); echo "$took" >>"$work/peer10"
        took=$(load "$peer5" "$HASHED" "${one[@]}"); echo "$took" >>"$work/peer5"
    fi
    echo "tokens, $round of $ROUNDS:" "$(cd "$work" && tail -qn 1 through direct robot cold10 cold5 peer10 peer5 2>/dev/null | xargs)" >&2
done

echo
echo "Tokens per second over TLS with $CONNECTIONS connections, and with $HASHED where passwords are hashed, medians of $ROUNDS, taken in turns:"
echo
if [ -z "${DOCKER_AUTH:-}" ]; then
    echo "(docker_auth was not measured: \`DOCKER_AUTH\` did not name its program.)"
    echo
fi
row() { # what, file of Berth, file of the peer
    local ours theirs
    ours=$(median <"$work/$2")
    if [ ! -e "$work/$3" ]; then
        printf '| %s | %.0f/s | | |\n' "$1" "$ours"
        return
    fi
    theirs=$(median <"$work/$3")
    awk -v what="$1" -v a="$ours" -v b="$theirs" \
        'BEGIN { printf "| %s | %.0f/s | %.0f/s | %.*f× |\n", what, a, b, (a / b < 10 ? 1 : 0), a / b }'
}
echo "| what | Berth | docker_auth, which hashes every time | Berth is ahead by |"
echo "|---|---|---|---|"
row "bcrypt cost 10, remembered, through registry-server" through peer10
row "bcrypt cost 10, remembered, from auth-server itself" direct peer10
row "a robot's secret, from auth-server itself" robot peer10
row "bcrypt cost 10, hashed every time" cold10 peer10
row "bcrypt cost 5, hashed every time" cold5 peer5
echo
echo "Where every password is hashed, Berth leaves one core free of bcrypt, so that sign-ins never take the whole machine."

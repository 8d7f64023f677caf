#!/usr/bin/env bash
# Berth behind nginx, Caddy and HAProxy at once, each with the file that deploy/ ships and on a port of its own, under TLS:
# docker works and the conformance suite passes, Location is relative, layers stream through, and what a client says of itself is not believed.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/interop/suite.sh
. "$root/tests/interop/suite.sh"

blob_mib=256
# What all processes of a proxy may hold in memory together: less than the blob.
resident_mib_max=128
# So many pulls that more are under way at once than one network may have connections: 512.
pulls=600
pulls_at_once=520

prepare() {
    need_docker
    need_static_compiler
    need curl curl
    need jq jq
    need nginx nginx
    need caddy caddy
    need haproxy haproxy
    need_binaries
    # conformance.sh is what is skipped without Go.
    (need_suite) || true
}

enter_sandbox prepare

# shellcheck source=tests/interop/stack.sh
. "$root/tests/interop/stack.sh"

proxies=(nginx caddy haproxy)
declare -A port_of=([nginx]=8443 [caddy]=9443 [haproxy]=10443)
# The one place where a proxy could write what passes through. It has room for nothing.
temp=$scratch/temp

# ---------------------------------------------------------------- Berth on loopback, as the files of deploy/ say

# The edit of registry.toml that they ask for, with an origin for each proxy.
leave_tls_to_proxies() {
    local name urls=()
    for name in "${proxies[@]}"; do
        urls+=("\"https://$host:${port_of[$name]}\"")
    done
    stop registry-server || fail "registry-server ended with $? on SIGTERM"
    awk -v urls="$(IFS=,; echo "${urls[*]}")" '
        /^\[/ { in_tls = ($0 ~ /^\[tls\]/) }
        in_tls || /^(listen|public_urls|trusted_proxies)/ { next }
        { print }
        /^log =/ {
            print "listen = \"127.0.0.1:5000\""
            print "public_urls = [" urls "]"
            print "trusted_proxies = [\"127.0.0.1/32\"]"
        }' "$data/registry.toml" >"$scratch/registry.toml"
    cp "$scratch/registry.toml" "$data/registry.toml"
    start registry-server "$bin/registry-server" --config "$data/registry.toml"
    wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
}

# ---------------------------------------------------------------- the proxies

start_proxies() {
    local name
    mkdir "$temp"
    mount -t tmpfs -o mode=1777,size=1m sandbox "$temp"
    for name in "${proxies[@]}"; do
        mkdir "$scratch/$name"
        "start_$name" "${port_of[$name]}"
    done
    for name in "${proxies[@]}"; do
        wait_for 20 "$name to answer" curl --silent --fail --cacert "$certs/ca.pem" "https://$host:${port_of[$name]}/healthz"
        trust "$host:${port_of[$name]}" "$certs/ca.pem"
    done
}

# The shipped file holds a server; what nginx wants around it is as in Debian's nginx.conf, but for the directories.
start_nginx() {
    local kind
    sed -e "s|443 ssl|$1 ssl|" -e "s|/etc/ssl/berth/|$certs/|" "$root/deploy/nginx/berth.conf" >"$scratch/nginx/berth.conf"
    {
        printf 'user root; daemon off; error_log stderr; pid %s;\n' "$scratch/nginx/pid"
        # Two of nginx's for each client's.
        printf 'worker_rlimit_nofile 4096; events { worker_connections 4096; }\nhttp {\n    access_log off;\n'
        for kind in client_body proxy fastcgi uwsgi scgi; do
            printf '    %s_temp_path %s;\n' "$kind" "$temp/$kind"
        done
        printf '    include %s;\n}\n' "$scratch/nginx/berth.conf"
    } >"$scratch/nginx/nginx.conf"
    start nginx nginx -e stderr -p "$scratch/nginx" -c "$scratch/nginx/nginx.conf"
}

start_caddy() {
    sed -e "s|^reg\.homelab\.lan|$host:$1|" -e "s|/etc/ssl/berth/|$certs/|g" "$root/deploy/caddy/Caddyfile" \
        >"$scratch/caddy/Caddyfile"
    start caddy env HOME="$scratch/caddy" TMPDIR="$temp" caddy run --adapter caddyfile --config "$scratch/caddy/Caddyfile"
}

start_haproxy() {
    (umask 077 && cat "$certs/server.pem" "$certs/server.key" >"$scratch/haproxy/berth.pem")
    sed -e "s|:::443|:::$1|" -e "s|/etc/haproxy/|$scratch/haproxy/|" "$root/deploy/haproxy/haproxy.cfg" \
        >"$scratch/haproxy/haproxy.cfg"
    start haproxy env TMPDIR="$temp" haproxy -W -f "$scratch/haproxy/haproxy.cfg"
}

# ---------------------------------------------------------------- docker

docker_works() {
    local image=$registry/team/$1:1
    refused "$1: docker login with a wrong password" "$denied" sign_in "$registry" andrew wrong
    succeeds "$1: docker login" sign_in "$registry" andrew "$andrew_password"
    docker tag greeter "$image"
    succeeds "$1: docker push" docker push "$image"
    docker image rm --force "$image" >/dev/null
    docker image rm --force greeter >/dev/null
    succeeds "$1: docker pull" docker pull "$image"
    docker tag "$image" greeter
    succeeds "$1: docker logout" docker logout "$registry"
    refused "$1: docker pull after logout" "$denied" docker pull "$image"
}

# ---------------------------------------------------------------- each answer with a Location or a Link

repository=team/by-hand
headers=$scratch/headers

# as_andrew CURL-ARGUMENTS...: adds the answer's headers to the file $headers.
as_andrew() {
    curl_berth andrew "$andrew_password" "repository:$repository:pull,push repository:$repository/2:pull,push" \
        --fail --show-error --dump-header "$headers.one" "$@"
    cat "$headers.one" >>"$headers"
}

location() { tr --delete '\r' <"$headers.one" | sed --quiet 's/^[Ll]ocation: //p'; }
octets='Content-Type: application/octet-stream'

# Sessions, chunks, a blob at once, a mount, manifests with tags, and a list in pages.
every_location() {
    local at=https://$registry/v2/$repository blob=$scratch/small digest tag
    head -c 1000 /dev/urandom >"$blob"
    digest=sha256:$(sha256sum "$blob" | cut --delimiter ' ' --fields 1)
    : >"$headers"
    as_andrew --request POST "$at/blobs/uploads/"
    as_andrew --request PATCH --header "$octets" --data-binary "@$blob" "https://$registry$(location)"
    as_andrew "https://$registry$(location)"
    as_andrew --request PUT "https://$registry$(location)?digest=$digest"
    as_andrew --header "$octets" --data-binary "@$blob" "$at/blobs/uploads/?digest=$digest"
    as_andrew --request POST "$at/2/blobs/uploads/?mount=$digest&from=$repository"
    grep --quiet ' 201' "$headers.one" || return 1
    printf '{"schemaVersion": 2, "mediaType": "%s", "config": %s, "layers": []}' \
        application/vnd.oci.image.manifest.v1+json \
        "{\"mediaType\": \"application/vnd.oci.empty.v1+json\", \"digest\": \"$digest\", \"size\": 1000}" >"$scratch/manifest"
    for tag in 1 2; do
        as_andrew --upload-file "$scratch/manifest" \
            --header 'Content-Type: application/vnd.oci.image.manifest.v1+json' "$at/manifests/$tag"
    done
    as_andrew "$at/tags/list?n=1"
}

locations_are_relative() {
    succeeds "$1: blobs in chunks and at once, a mount, manifests and a list in pages" every_location
    local found
    found=$(tr --delete '\r' <"$headers" | grep --ignore-case --extended-regexp '^(location|link): ')
    ! grep --invert-match --ignore-case --extended-regexp '^(location: |link: <)/v2/' <<<"$found" ||
        fail "$1: not relative"
    (($(wc -l <<<"$found") >= 9)) || fail "$1: there should be 8 Locations and a Link: $found"
    ok "$1: Location and Link are relative, $(wc -l <<<"$found") times"
}

# ---------------------------------------------------------------- a large layer

push_large() {
    local size=$((blob_mib * 1024 * 1024))
    : >"$headers"
    as_andrew --request POST "https://$registry/v2/$repository/blobs/uploads/"
    # Without a length known beforehand, as docker sends it.
    as_andrew --request PATCH --header "$octets" --header 'Transfer-Encoding: chunked' --upload-file "$large" \
        "https://$registry$(location)"
    grep --quiet --ignore-case "^range: 0-$((size - 1))" "$headers.one" || return 1
    as_andrew --request PUT "https://$registry$(location)?digest=$large_digest"
}

pull_large() {
    local got
    got=$(curl_berth andrew "$andrew_password" "repository:$repository:pull" \
        "https://$registry/v2/$repository/blobs/$large_digest" | sha256sum)
    [[ sha256:${got%% *} == "$large_digest" ]]
}

# processes PID: it and those below it.
processes() {
    local child
    printf '%s\n' "$1"
    for child in $(<"/proc/$1/task/$1/children"); do
        processes "$child"
    done
}

# resident_mib PID: the most that each of its processes has held, added up.
resident_mib() {
    local pid
    for pid in $(processes "$1"); do
        cat "/proc/$pid/status"
    done | awk '/^VmHWM/ { kib += $2 } END { printf "%d", kib / 1024 }'
}

# Other content each time, so that it is stored as well. A proxy that buffers would need a place for 256 MiB.
streams() {
    local mib
    printf '%s' "$1" | dd of="$large" conv=notrunc status=none
    large_digest=sha256:$(sha256sum "$large" | cut --delimiter ' ' --fields 1)
    succeeds "$1: push of $blob_mib MiB with 1 MiB of room for temporary files" push_large
    succeeds "$1: pull of $blob_mib MiB with 1 MiB of room for temporary files" pull_large
    mib=$(resident_mib "${pid_of[$1]}")
    ((mib < resident_mib_max)) || fail "$1 held $mib MiB"
    ok "$1: it held $mib MiB at most"
}

# ---------------------------------------------------------------- many clients behind one address

# The connections that Berth has with nginx: those of port 5000 (1388 in hexadecimal) that are established.
open_connections() { awk '$2 ~ /:1388$/ && $4 == "01"' /proc/net/tcp | wc -l; }
enough_are_open() { (($(open_connections) >= pulls_at_once)); }

# pull_slowly USER PASSWORD N: more of the large layer than the system holds, by N connections at once. Prints the statuses.
pull_slowly() {
    local n list
    list=$(mktemp -p "$scratch")
    for ((n = 0; n < $3; n++)); do
        printf 'url = "https://%s/v2/%s/blobs/%s"\noutput = /dev/null\n' "$registry" "$repository" "$large_digest"
    done >"$list"
    curl_berth "$1" "$2" "repository:$repository:pull" --http1.1 --parallel --parallel-immediate \
        --parallel-max 300 --limit-rate 75k --range 0-3999999 --no-progress-meter --write-out '%{http_code}\n' --config "$list"
}

# curl has 300 connections at once and no more. Two users, since on a system that gives 4,096 files one may have some 500 of them.
many_are_served() {
    local half=$((pulls / 2)) first second
    # In this sandbox alone. Some systems keep up to 32 MiB for a slow reader: a whole pull would end there before the others begin.
    echo 4096 131072 262144 >/proc/sys/net/ipv4/tcp_rmem
    echo 4096 16384 262144 >/proc/sys/net/ipv4/tcp_wmem
    pull_slowly andrew "$andrew_password" "$half" >"$scratch/first" &
    first=$!
    pull_slowly reader "$reader_password" "$half" >"$scratch/second" &
    second=$!
    wait_for 60 "$pulls_at_once connections at once" enough_are_open
    curl --silent --fail --output /dev/null --cacert "$certs/ca.pem" "https://$registry/healthz" || fail "nobody else is served"
    { wait "$first" && wait "$second"; } || fail "a pull was cut off"
    [[ $(cat "$scratch/first" "$scratch/second" | sort | uniq --count) == *" $pulls 206" ]] ||
        fail "statuses: $(cat "$scratch/first" "$scratch/second" | sort | uniq --count), limits: $(grep 'a limit turns clients away' "$registry_log" | tail -n 3)"
    ok "$1: $pulls pulls of one trusted proxy, $pulls_at_once and more at once, all answered"
}

# ---------------------------------------------------------------- who the client is, and where it is sent

# forged HTTP URL CURL-ARGUMENTS...: everything that a client could say to be taken for another, or to be sent elsewhere.
forged() {
    : >"$headers"
    curl --silent --output /dev/null --dump-header "$headers" --cacert "$certs/ca.pem" "$1" \
        --header 'X-Forwarded-For: 203.0.113.9' --header 'X-Forwarded-For: 127.0.0.1' \
        --header 'X-Forwarded-Host: evil.example' --header 'X-Forwarded-Port: 1' --header 'X-Forwarded-Proto: http' \
        --header 'Forwarded: for=203.0.113.9;host=evil.example;proto=http' --header 'X-Real-IP: 203.0.113.9' \
        --header 'X-Berth-Client: 203.0.113.9' "${@:3}" "$2"
}

realm() { grep --ignore-case --only-matching --perl-regexp '^www-authenticate:.*realm="\K[^"]*' "$headers"; }

# The line of a request whose path tells it from all others.
logged_client() {
    grep --fixed-strings "/v2/$1/tags/list " "$registry_log" | grep --only-matching --perl-regexp ' client=\K\S+'
}

forgery_is_not_believed() {
    local http path n=0
    for http in --http1.1 --http2; do
        path=forged/$1/$((n += 1))
        forged "$http" "https://$registry/v2/$path/tags/list" || fail "$1: no answer to a forged request"
        [[ $(realm) == "https://$registry/token" ]] || fail "$1: sent to $(realm)"
        [[ $(logged_client "$path") == "$host_address" ]] || fail "$1: logged as $(logged_client "$path")"
    done
    ok "$1: with forged X-Forwarded-*, Forwarded and X-Real-IP the realm is https://$registry/token, the client $host_address"
}

# A proxy may turn an unknown host away by itself. What reaches Berth is sent to its first origin.
forged_host_is_not_believed() {
    local http
    for http in --http1.1 --http2; do
        forged "$http" "https://$registry/v2/forged/tags/list" --header 'Host: evil.example' || true
        ! grep --ignore-case evil "$headers" || fail "$1: the answer names the forged host"
        [[ $(realm || echo none) == @(none|"https://$host:${port_of[nginx]}/token") ]] || fail "$1: sent to $(realm)"
    done
    ok "$1: with a forged Host the realm is $(realm || echo "not given, since $1 turns it away")"
}

# 127.0.0.2 is not in trusted_proxies.
other_peers_are_not_believed() {
    forged --http1.1 http://127.0.0.1:5000/v2/forged/by-peer/tags/list --interface 127.0.0.2
    [[ $(realm) == "https://$host:${port_of[nginx]}/token" ]] || fail "sent to $(realm)"
    [[ $(logged_client forged/by-peer) == 127.0.0.2 ]] || fail "logged as $(logged_client forged/by-peer)"
    ok "a peer that is no trusted proxy is logged as itself, whatever it says in X-Forwarded-For"
}

# After everything above: only the proxies' own connections come from 127.0.0.1.
clients_are_logged() {
    local others
    others=$(grep --only-matching --perl-regexp ' client=\K\S+' "$registry_log" | sort --unique |
        grep --invert-match --line-regexp --fixed-strings --regexp "$host_address" --regexp 127.0.0.2) || true
    [[ -z $others ]] || fail "the registry's log names as clients: $others"
    ok "the registry's log names the clients' address throughout, and never a proxy's"
}

# ----------------------------------------------------------------

start_berth
leave_tls_to_proxies
start_proxies
start_dockerd
make_greeter greeter
large=$scratch/large
head -c "$((blob_mib * 1024 * 1024))" /dev/urandom >"$large"
note "$(nginx -v 2>&1), caddy $(caddy version), $(haproxy -v | head -n 1)"
for name in "${proxies[@]}"; do
    registry=$host:${port_of[$name]}
    docker_works "$name"
    [[ ! -x $suite_dir/conformance ]] || run_suite "dev behind $name" andrew "$andrew_password" OCI_VERSION=dev
    locations_are_relative "$name"
    streams "$name"
    forgery_is_not_believed "$name"
    forged_host_is_not_believed "$name"
done
registry=$host:${port_of[nginx]}
many_are_served nginx
other_peers_are_not_believed
clients_are_logged

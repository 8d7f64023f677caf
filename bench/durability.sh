#!/usr/bin/env bash
# What it costs that a push is acknowledged only when it is on the disk: Berth beside Berth with
# `durable = false`, in turns in the same run. Called by `make bench`; prints a table.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=bench/lib.sh
. bench/lib.sh

readonly ROUNDS=${BENCH_PUSHES:-5} BLOB_MIB=${BENCH_BLOB_MIB:-1024} SMALL=${BENCH_SMALL_BLOBS:-500}

start() { # durable|loose
    local site=$work/$1 port
    port=$(free_port)
    BERTH_DATA=$site BERTH_CERTS=$site/certs BERTH_HOST=localhost BERTH_PORT=$port \
        BERTH_USER=andrew BERTH_PASSWORD=bench-password \
        "$BIN/authctl" init --listen "127.0.0.1:$port" >/dev/null
    sed -i 's/^log = .*/log = "error"/' "$site/auth.toml" "$site/registry.toml"
    [ "$1" = durable ] || sed -i '1i durable = false' "$site/registry.toml"
    "$BIN/auth-server" --config "$site/auth.toml" 2>/dev/null &
    pids+=($!)
    "$BIN/registry-server" --config "$site/registry.toml" 2>/dev/null &
    pids+=($!)
    until "$BIN/registry-server" --config "$site/registry.toml" health 2>/dev/null; do sleep 0.1; done
    echo "$port" >"$site/port"
}

start durable
start loose
python3 - "$work" "$ROUNDS" "$BLOB_MIB" "$SMALL" <<'PY'
import base64, hashlib, http.client, json, os, ssl, statistics, sys, time

work, rounds, mib, small = sys.argv[1], *map(int, sys.argv[2:])

class Site:
    def __init__(self, name):
        self.large, self.little = [], []
        port = int(open(f"{work}/{name}/port").read())
        trust = ssl.create_default_context(cafile=f"{work}/{name}/certs/ca.pem")
        self.connection = http.client.HTTPSConnection("localhost", port, context=trust)
        basic = base64.b64encode(b"andrew:bench-password").decode()
        answer = self.ask("GET", "/token?service=berth&scope=repository:bench/app:pull,push",
                          headers={"Authorization": f"Basic {basic}"})
        self.headers = {"Authorization": "Bearer " + json.loads(answer)["token"]}

    def ask(self, method, path, body=None, headers=None):
        self.connection.request(method, path, body, headers or self.headers)
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status < 300, (answer.status, text)
        self.location = answer.headers.get("location")
        return text

    def push(self, blob):
        digest = hashlib.sha256(blob).hexdigest()
        begun = time.monotonic()
        self.ask("POST", "/v2/bench/app/blobs/uploads/")
        self.ask("PUT", f"{self.location}?digest=sha256:{digest}", blob)
        return time.monotonic() - begun

sites = [Site("durable"), Site("loose")]
for _ in range(rounds):
    for site in sites:
        site.large.append(site.push(os.urandom(mib << 20)))
    for site in sites:
        blobs = [os.urandom(4096) for _ in range(small)]
        begun = time.monotonic()
        for blob in blobs:
            site.push(blob)
        site.little.append(small / (time.monotonic() - begun))

durable, loose = sites
print(f"\nWhat durability costs, medians of {rounds}, taken in turns:\n")
print("| what | durable (default) | `durable = false` | ratio |")
print("|---|---|---|---|")
a, b = statistics.median(durable.large), statistics.median(loose.large)
print(f"| push of {mib} MiB over TLS, one request | {a:.2f} s | {b:.2f} s | {a / b:.2f} |")
a, b = statistics.median(durable.little), statistics.median(loose.little)
print(f"| pushes of 4 KiB, one after the other | {a:.0f}/s | {b:.0f}/s | {b / a:.2f} |")
PY

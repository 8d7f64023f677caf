#!/usr/bin/env bash
# A page of another origin, in headless Chromium: with its origin in [cors] it signs in by the challenge and reads what it
# pulls; with another origin's it gets nothing.
# shellcheck source=tests/interop/go-clients.sh
. "$(dirname "$0")/../interop/go-clients.sh"

prepare() {
    need_root
    need chromium chromium
    need python3 python3
    need curl curl
    need jq jq
    need ip iproute2
    need_binaries
}

enter_sandbox prepare

page_port=$(free_port)
page=http://127.0.0.1:$page_port
site=$scratch/site

# The page does what a registry UI does: it asks, is challenged, gets a token and shows what it reads.
write_page() {
    mkdir -p "$site"
    cat >"$site/index.html" <<PAGE
<!doctype html><title>ui</title><p id="said">nothing</p><script>
(async () => {
    const at = "https://$registry", said = [];
    try {
        const first = await fetch(at + "/v2/team/app/tags/list");
        const challenge = first.headers.get("WWW-Authenticate");
        said.push(first.status, challenge.startsWith("Bearer realm="));
        const login = "Basic " + btoa(String.fromCharCode(...new TextEncoder().encode("reader:" + $(jq --null-input --arg it "$reader_password" '$it'))));
        const scope = challenge.match(/scope="([^"]*)"/)[1];
        const answer = await fetch(at + "/token?service=berth&scope=" + scope, {headers: {Authorization: login}});
        const token = (await answer.json()).token;
        const bearer = {headers: {Authorization: "Bearer " + token}};
        const tags = await (await fetch(at + "/v2/team/app/tags/list", bearer)).json();
        const manifest = await fetch(at + "/v2/team/app/manifests/one", bearer);
        said.push(tags.tags.join("+"), manifest.headers.get("Docker-Content-Digest"));
    } catch (error) { said.push("blocked: " + error.message); }
    document.getElementById("said").textContent = said.join(" ");
    document.title = "done";
})();
</script>
PAGE
}

# what_it_says ORIGIN: the page's text, once its script has ended.
what_it_says() {
    chromium --headless --no-sandbox --disable-gpu --user-data-dir="$scratch/chromium" --ignore-certificate-errors \
        --virtual-time-budget=20000 --dump-dom "$1/" 2>/dev/null | sed -n 's/.*id="said">\([^<]*\)<.*/\1/p'
}

pages_read() {
    local digest
    digest=$(layout_digest "$scratch/image" one)
    says "a page whose origin is allowed signs in and reads tags and digest" 0 "401 true one $digest" what_it_says "$page"
    says "a page of another origin is told nothing" 0 'blocked: Failed to fetch' what_it_says "http://localhost:$page_port"
}

# ----------------------------------------------------------------

succeeds "authctl init" init_berth
printf '\n[cors]\nallowed_origins = ["%s"]\n' "$page" >>"$data/registry.toml"
start auth-server "$bin/auth-server" --config "$data/auth.toml"
start registry-server "$bin/registry-server" --config "$data/registry.toml"
wait_for 30 "registry-server to be healthy" "$bin/registry-server" --config "$data/registry.toml" health
add_user reader "$reader_password" 'team/**:pull'
make_layout "$scratch/image" "a page's words"
send() { curl --silent --fail --cacert "$certs/ca.pem" --user "andrew:$andrew_password" "$@"; }
while read -r digest; do
    send --request POST --data-binary "@$scratch/image/blobs/sha256/${digest#*:}" --header 'Content-Type: application/octet-stream' \
        "https://$registry/v2/team/app/blobs/uploads/?digest=$digest" || fail "pushing a blob"
done < <(jq --raw-output '.config.digest, .layers[].digest' "$scratch/image/blobs/sha256/$(layout_digest "$scratch/image" one | cut -d : -f 2)")
send --request PUT --data-binary "@$scratch/image/blobs/sha256/$(layout_digest "$scratch/image" one | cut -d : -f 2)" \
    --header 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
    "https://$registry/v2/team/app/manifests/one" || fail "pushing a manifest"
write_page
start pages python3 -m http.server --bind 127.0.0.1 --directory "$site" "$page_port"
wait_for 20 "the page" curl --silent --fail "$page/"
pages_read

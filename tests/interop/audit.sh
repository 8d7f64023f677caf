#!/usr/bin/env bash
# The audit as an administrator reads it: what was typed, who got a token, who did not, and no secret anywhere.
# shellcheck source=tests/interop/stack.sh
. "$(dirname "$0")/stack.sh"

prepare() {
    need curl curl
    need jq jq
    need openssl openssl
    need_binaries
}

enter_sandbox prepare

token() { curl --silent --cacert "$certs/ca.pem" --user "$1:$2" "https://$registry/token?service=berth&scope=$3" --output /dev/null; }

# recorded EVENT FILTER...: whether a row of that event is there, as JSON, for which jq's filter holds.
recorded() {
    local event=$1 filter=$2
    ctl --json audit --event "$event" | jq --exit-status "any(.[]; $filter)" >/dev/null
}

is_recorded() { wait_for 10 "$1 to be recorded" recorded "$1" "$2" && ok "$1 is recorded: $2"; }

# A key set as a cluster writes it, of a key that signs nothing here.
key_set() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$scratch/issuer.key"
    local point
    point=$(openssl ec -in "$scratch/issuer.key" -pubout -outform DER 2>/dev/null | tail -c 64 | base64 -w0)
    local x y
    x=$(base64 -d <<<"$point" | head -c 32 | base64 -w0 | tr '+/' '-_' | tr -d =)
    y=$(base64 -d <<<"$point" | tail -c 32 | base64 -w0 | tr '+/' '-_' | tr -d =)
    printf '{"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "use": "sig", "x": "%s", "y": "%s"}]}\n' "$x" "$y"
}

what_is_typed() {
    local secret
    printf 'secret of lena\n' | ctl user add lena --password-stdin >/dev/null
    ctl grant lena team/app:pull >/dev/null
    ctl deny lena 'team/secret/**:pull' >/dev/null
    ctl group add devs lena >/dev/null 2>&1
    secret=$(ctl --json robot create ci --grant team/app:pull | jq --raw-output .secret)
    key_set >"$scratch/keys.json"
    ctl trust add builder --issuer https://kubernetes.default.svc --audience "$host" --keys "$scratch/keys.json" \
        --subject system:serviceaccount:prod:builder --grant team/app:pull >/dev/null
    ctl key rotate --now >/dev/null
    ctl revoke-tokens lena >/dev/null
    is_recorded user.add '.subject == "lena" and .actor == "root" and .verb == "user add"'
    is_recorded grant.add '.subject == "lena" and .pattern == "team/app" and .actions == "pull"'
    is_recorded deny.add '.pattern == "team/secret/**"'
    is_recorded group.add '.group == "devs"'
    is_recorded robot.create '.subject == "robot.ci"'
    is_recorded trust.add '.subject == "robot.builder" and .issuer == "https://kubernetes.default.svc"'
    is_recorded key.rotate '.verb == "key rotate"'
    is_recorded key.retire '.key_id != null'
    is_recorded tokens.revoke '.subject == "lena"'
    ctl trust remove builder >/dev/null
    ctl robot revoke ci >/dev/null
    ctl revoke lena team/app:pull >/dev/null
    ctl key rotate --compromised >/dev/null
    is_recorded trust.remove '.subject == "robot.builder"'
    is_recorded robot.revoke '.subject == "robot.ci"'
    is_recorded grant.remove '.subject == "lena"'
    is_recorded key.compromised '.key_id != null'
    secrets+=("$secret" "secret of lena")
}

what_clients_do() {
    token reader "$reader_password" repository:team/app:pull
    token reader "$reader_password" repository:elsewhere:push
    token reader 'wrong and mistyped' repository:team/app:pull
    token 'password in the wrong field' x repository:team/app:pull
    is_recorded token.issue '.subject == "reader" and .granted == ["repository:team/app:pull"]'
    is_recorded token.deny '.subject == "reader" and .requested == ["repository:elsewhere:push"]'
    is_recorded login.fail '.subject == "reader"'
    is_recorded login.fail '.subject == null and .name_tag != null'
    secrets+=("$reader_password" "$andrew_password" 'wrong and mistyped' 'password in the wrong field')
}

what_is_read() {
    succeeds "audit --since --subject" ctl audit --since 1h --subject reader
    grep --quiet 'token.deny' <<<"$output" || fail "it shows $output"
    ! grep --quiet 'lena' <<<"$output" || fail "it shows somebody else: $output"
    succeeds "what nobody did is nothing" ctl audit --subject nobody
    says "an event that does not exist is refused with those that do" 2 'there are audit.gap' ctl audit --event no.such
}

the_file_says_the_same() {
    is_same() {
        diff <(ctl --json audit --limit 100000 | jq '.[] | select(.event != "login.busy") | .id') <(jq .id "$data/auth/audit.jsonl")
    }
    wait_for 10 "the file to follow" is_same
    [[ $(stat -c %a "$data/auth/audit.jsonl") == 600 ]] || fail "others may read the file"
    ok "audit.jsonl has every row but what was turned away, in order, and is its owner's alone"
    local secret
    for secret in "${secrets[@]}"; do
        ! grep --recursive --quiet --fixed-strings -e "$secret" "$data/auth" "$scratch/logs" || fail "a secret was kept"
    done
    ok "no password and no secret is in the database, the file or a log (${#secrets[@]} looked for)"
}

# ----------------------------------------------------------------

secrets=()
start_berth
what_is_typed
what_clients_do
what_is_read
the_file_says_the_same

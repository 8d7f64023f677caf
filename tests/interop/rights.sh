#!/usr/bin/env bash
# Rights as an administrator types them: grants, denies, groups, robots, policy files, and what explain says of them.
# shellcheck source=tests/interop/stack.sh
. "$(dirname "$0")/stack.sh"

prepare() {
    need curl curl
    need jq jq
    need_binaries
}

enter_sandbox prepare

may() { says "explain: $1 may $2" 0 "^  by the grant $3" ctl explain "$1" "$2"; }
may_not() { says "explain: $1 may not $2" 1 "$3" ctl explain "$1" "$2"; }

# token USER PASSWORD SCOPE: the granted scope.
granted() {
    curl --silent --fail --cacert "$certs/ca.pem" --user "$1:$2" \
        "https://$registry/token?service=berth&scope=$3" | jq --raw-output .scope
}

denies_and_groups() {
    printf 'secret of lena\n' | ctl user add lena --password-stdin >/dev/null
    says "a group of a user and of one who is yet to come" 0 'there is no user nora yet' ctl group add devs lena nora
    says "a grant to a group" 0 'group:devs +allow +team/\*\* +pull,push' ctl grant group:devs 'team/**:pull,push'
    may lena team/app:push 'group:devs team/\*\*:pull,push'
    says "a deny" 0 'lena +deny +team/secret/\*\* +push' ctl deny lena 'team/secret/**:push'
    may_not lena team/secret/app:push "authctl deny lena 'team/secret/\*\*:push' --remove"
    may lena team/secret/app:pull 'group:devs'
    [[ $(granted lena 'secret of lena' repository:team/secret/app:pull,push) == repository:team/secret/app:pull ]] ||
        fail "the token does not heed the deny"
    ok "a token heeds the deny"
    says "grants lists both" 0 'lena +deny +team/secret/\*\*' ctl grants lena
    [[ $(ctl --json grants lena | jq '[.[] | .effect] | unique == ["allow", "deny"]') == true ]] || fail "grants --json"
    ok "grants --json says which is which"
    ctl grant lena team/app:push >/dev/null
    says "a revoke that leaves the right through a group names the rule" 1 \
        'lena still holds push through the grant group:devs team/\*\*:pull,push' ctl revoke lena team/app:push
    says "a deny is taken back" 0 'removed the deny lena' ctl deny lena 'team/secret/**:push' --remove
    says "and only once" 1 'there is no deny lena' ctl deny lena 'team/secret/**:push' --remove
    says "a member leaves" 0 'lena left group:devs' ctl group remove devs lena
    may_not lena team/app:push 'to allow it: authctl grant lena team/app:push'
    says "who is not in a group cannot leave it" 1 'lena is not in group:devs' ctl group remove devs lena
}

homes_and_hints() {
    says "a grant below everybody's own name" 0 'home/\$\{user\}/\*\*' ctl grant everyone 'home/${user}/**:*'
    may lena home/lena/app:push 'everyone home/\$\{user\}/\*\*:'
    may_not lena home/andrew/app:push 'nothing allows lena'
    says "a grant to nobody is made, with a warning" 0 'warning: there is no user nobody yet' ctl grant nobody a:pull
    says "a pattern with a host is refused with a hint" 2 'names a host' ctl grant lena reg.lan:5000/a:pull
    says "a pattern outside the grammar is refused with a hint" 2 'for any depth' ctl grant lena 'a**b:pull'
    says "--dry-run of a deny" 0 'would deny' ctl deny lena a:pull --dry-run
    [[ -z $(ctl grants lena | grep deny) ]] || fail "--dry-run of a deny denied something"
}

robots() {
    says "a robot" 0 'berth_[0-9A-Za-z]{36}$' ctl robot create ci --grant team/app:pull,push --expires 90d
    says "a robot of that name is there" 1 'robot.ci already' ctl robot create robot.ci
    local made secret
    made=$(ctl --json robot create cluster --grant 'team/**:pull')
    [[ $(jq --raw-output .name <<<"$made") == robot.cluster ]] || fail "robot create --json: $made"
    secret=$(jq --raw-output .secret <<<"$made")
    [[ $(granted robot.cluster "$secret" repository:team/app:pull,push) == repository:team/app:pull ]] ||
        fail "the robot cannot sign in"
    ok "a robot signs in with the secret of --json"
    used() { ctl --json robot list | jq --exit-status '.[] | select(.name == "robot.cluster") | .last_used' >/dev/null; }
    wait_for 10 "its use to be listed" used
    ok "robot list shows its last use"
    may robot.cluster team/app:pull 'robot.cluster team/\*\*:pull'
    grep --recursive --quiet --fixed-strings -e "$secret" "$data" "$scratch/logs" && fail "the secret is on the disk or in a log"
    ok "the secret is nowhere on the disk, nor in a log"
    says "tokens are voided" 0 'is void within seconds$' ctl revoke-tokens robot.cluster
    says "the robot is revoked" 0 'removed robot.cluster' ctl robot revoke cluster
    ! granted robot.cluster "$secret" repository:team/app:pull || fail "a revoked robot signed in"
    ok "a revoked robot cannot sign in"
    says "a robot that is not there" 1 'there is no robot.cluster' ctl robot revoke cluster
}

policy_files() {
    local file=$scratch/policy.toml
    ctl policy export >"$file"
    says "what was exported changes nothing" 0 'nothing to change' ctl policy apply "$file" --prune
    sed --in-place 's/^\[deny\]/[deny]\neveryone = ["archive\/**:push until 2999-01-31T00:00:00Z"]/; /nobody/,/^\]/d' "$file"
    says "apply --dry-run shows the difference" 0 '^\+ deny everyone archive/\*\*:push until 2999-01-31T00:00:00Z' \
        ctl policy apply "$file" --prune --dry-run
    grep --quiet '^- nobody a:pull' <<<"$output" || fail "apply --dry-run does not show what is pruned: $output"
    says "--dry-run changed nothing" 0 'nobody' ctl grants
    says "without --prune nothing is taken" 0 'applied' ctl policy apply "$file"
    says "as grants shows" 0 'nobody' ctl grants
    says "apply --prune" 0 '^- nobody a:pull' ctl policy apply "$file" --prune
    says "and again" 0 'nothing to change' ctl policy apply "$file" --prune
    ctl grants >"$scratch/before"
    printf '[allow]\nlena = ["a:pull"]\n"Lena x" = ["b:pull"]\n' >"$file"
    says "a file that is not valid is refused with its line" 1 'line 3' ctl policy apply "$file" --prune
    ctl grants | diff "$scratch/before" - || fail "a file that is not valid changed something"
    ok "and changes nothing"
    printf '[allow]\nlena = ["from/stdin:pull"]\n' | ctl policy apply - >/dev/null
    may lena from/stdin:pull 'lena from/stdin:pull'
}

# ----------------------------------------------------------------

start_berth
denies_and_groups
homes_and_hints
robots
policy_files

# shellcheck shell=bash
# Sourced by the scripts for the clients: docs/CLIENTS.md is written from what they have shown.
#
#   client NAME VERSION     begins the results of a client
#   shown NAME FEATURE      after the checks that show it
#   lacks NAME FEATURE      the client has no such function
#   finish_matrix           at the script's end
#
# With BERTH_WRITE_MATRIX=1 finish_matrix writes the page anew.
# Otherwise it fails when the page claims more for these clients than the script has shown, so the page stays true.

# shellcheck source=tests/interop/lib.sh
declare -F enter_sandbox >/dev/null || . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

matrix_page=$root/docs/CLIENTS.md
matrix_results=$root/target/interop/clients
# The columns of the page. Clients that have no results yet are left out.
matrix_clients=(docker podman buildah skopeo ctr cri crane oras regctl helm)
# The rows: FEATURE|what it means.
# shellcheck disable=SC2016  # the backticks are Markdown's
matrix_features=(
    'login|login; wrong passwords and unknown users are refused, with anonymous pull off and on'
    'password|a password with `:`, spaces, `"` and characters beyond ASCII'
    'robot|login of a robot with its secret, until it is revoked'
    'secret-store|login, push and logout with an encrypted credential store'
    'push|push'
    'pull-tag|pull by tag'
    'pull-digest|pull by digest'
    'index|an index for several architectures, pushed and pulled'
    'mount|push that mounts a layer from another repository'
    'no-mount|push that may not mount and uploads the layer itself'
    'tags|list of tags'
    'catalog|list of repositories'
    'delete|delete'
    'copy|copy between repositories'
    'referrers|artifacts with a subject, found by `referrers`'
    'anonymous|anonymous pull beside authenticated push, on one host'
)
matrix_here=()

# client NAME VERSION
client() {
    [[ " ${matrix_clients[*]} " == *" $1 "* ]] || fail "matrix.sh has no column for $1"
    matrix_here+=("$1")
    mkdir -p "$scratch/clients"
    printf 'version\t%s\n' "$2" >"$scratch/clients/$1.tsv"
    note "$1 $2"
}

# shown NAME FEATURE
shown() { matrix_result "$1" "$2" yes; }

# lacks NAME FEATURE
lacks() { matrix_result "$1" "$2" –; }

matrix_result() {
    [[ " ${matrix_here[*]} " == *" $1 "* ]] || fail "'$1' was not named by client NAME VERSION"
    matrix_has_row "$2" || fail "matrix.sh has no row for '$2'"
    printf '%s\t%s\n' "$2" "$3" >>"$scratch/clients/$1.tsv"
}

matrix_has_row() {
    local row
    for row in "${matrix_features[@]}"; do
        [[ ${row%%|*} != "$1" ]] || return 0
    done
    return 1
}

finish_matrix() {
    local name
    mkdir -p "$matrix_results"
    for name in "${matrix_here[@]}"; do
        cp "$scratch/clients/$name.tsv" "$matrix_results/$name.tsv.partial"
        mv "$matrix_results/$name.tsv.partial" "$matrix_results/$name.tsv"
    done
    if [[ ${BERTH_WRITE_MATRIX:-} == 1 ]]; then
        write_matrix >"$scratch/CLIENTS.md"
        cp "$scratch/CLIENTS.md" "$matrix_page"
        note "docs/CLIENTS.md is written anew"
        return
    fi
    for name in "${matrix_here[@]}"; do
        matrix_claims_are_shown "$name"
        ok "$name: everything that docs/CLIENTS.md says of it was shown"
    done
}

# matrix_value NAME KEY: the last value of the key in the client's results.
matrix_value() { awk -F '\t' -v key="$2" '$1 == key { value = $2 } END { print value }' "$matrix_results/$1.tsv"; }

write_matrix() {
    local names=() name row
    for name in "${matrix_clients[@]}"; do
        [[ ! -s $matrix_results/$name.tsv ]] || names+=("$name")
    done
    cat <<'PAGE'
# Clients

What has been shown with real clients, over TLS and with users and tokens on.
The scripts `tests/interop/client-*.sh` write this page: `BERTH_WRITE_MATRIX=1 make test`.
`make test` fails when a line here is not shown any more.

`yes` was shown, `–` means that the client has no such function, and an empty field that it was not tried.
`ctr` is containerd's own tool, and `cri` is containerd's `PullImage`, which a kubelet calls.

PAGE
    matrix_line "" "${names[@]}"
    matrix_line "---" "${names[@]//*/---}"
    matrix_row version version "${names[@]}"
    for row in "${matrix_features[@]}"; do
        matrix_row "${row%%|*}" "${row#*|}" "${names[@]}"
    done
    cat <<'PAGE'

crane follows no `Link` to a further page of a registry on localhost or a private address (`pagination URL scheme "https" does not match`), whichever registry it is: lists of more than 1,000 tags or repositories fail there, since it asks for pages of a thousand. skopeo, oras and regctl list them all.
oras takes a registry on `localhost` for one without TLS: give it `--plain-http=false` there. docker of this age, podman and skopeo take no IPv6 address in the name of an image: give them a name.
PAGE
}

# matrix_row FEATURE TITLE NAME...
matrix_row() {
    local feature=$1 title=$2 values=() name
    shift 2
    for name in "$@"; do
        values+=("$(matrix_value "$name" "$feature")")
    done
    matrix_line "$title" "${values[@]}"
}

matrix_line() {
    printf '|'
    printf ' %s |' "$@"
    printf '\n'
}

# matrix_claims NAME: the titles of the rows with `yes` in the client's column of the page.
matrix_claims() {
    awk -F ' *[|] *' -v name="$1" '
        /^[|]/ && !column { for (at = 3; at <= NF; at++) if ($at == name) column = at; next }
        column && $column == "yes" { print $2 }' "$matrix_page"
}

# A page that was never written claims nothing.
matrix_claims_are_shown() {
    [[ -e $matrix_page ]] || return 0
    local title row feature
    while IFS= read -r title; do
        feature=
        for row in "${matrix_features[@]}"; do
            [[ ${row#*|} != "$title" ]] || feature=${row%%|*}
        done
        [[ -n $feature && $(matrix_value "$1" "$feature") == yes ]] ||
            fail "docs/CLIENTS.md says of $1 '$title', and that was not shown"
    done < <(matrix_claims "$1")
}

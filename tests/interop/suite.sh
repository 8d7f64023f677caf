# shellcheck shell=bash
# Sourced by the scripts that run the official conformance suite of the OCI distribution specification.
# A skipped test never fails the suite, so the counts are compared with conformance.expected as well.

# shellcheck source=tests/interop/lib.sh
declare -F enter_sandbox >/dev/null || . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111
suite_dir=$root/target/interop/bin

# Outside the sandbox, where there is a network. A Go program knows which version it was built from.
need_suite() {
    command -v go >/dev/null || skip "the conformance suite needs Go 1.24 or newer to be built"
    if go version -m "$suite_dir/conformance" 2>/dev/null | grep --fixed-strings "${suite#*@}" >/dev/null; then
        return
    fi
    note "installing $suite"
    local log
    log=$(GOBIN=$suite_dir go install "$suite" 2>&1) && return
    indent <<<"$log"
    skip "the conformance suite could not be installed"
}

# run_suite SETTING USER PASSWORD VARIABLE=VALUE...: against $registry, trusting the CA in $certs.
# Words after SETTING's first are for the reader.
run_suite() {
    local out
    out=$(mktemp -d -p "$scratch" suite.XXXXXX)
    suite_passes "$out" "$@" || { indent <"$out/printed" && fail "the conformance suite: $1"; }
    compare_counts "$out" "$1"
}

# Only the variables given reach the program, so that nothing of the caller's changes what is tested.
# shellcheck disable=SC2154 # stack.sh sets certs and registry
suite_passes() {
    local out=$1 setting=$2 status=0
    env --ignore-environment --chdir "$out" HOME="$out" SSL_CERT_FILE="$certs/ca.pem" OCI_RESULTS_DIR="$out" \
        OCI_REGISTRY="$registry" OCI_TLS=enabled OCI_USERNAME="$3" OCI_PASSWORD="$4" "${@:5}" \
        "$suite_dir/conformance" >"$out/printed" 2>&1 || status=$?
    grep --quiet --line-regexp 'OCI Conformance Result: Pass' "$out/printed" || return 1
    ((status == 0)) || stumbled_over_its_report "$setting" "$out"
}

# With pushes off, this version of the suite panics after it has printed its result, and before it writes junit.xml:
# it looks up the name of a set of data that it has not made.
stumbled_over_its_report() { [[ $1 == read-only ]] && grep --quiet 'main.*ReportResultsYAML' "$2/printed"; }

compare_counts() {
    local got wanted setting=${2%% *}
    got=$setting$(counts "$1")
    wanted=$(grep "^$setting " "$root/tests/interop/conformance.expected") || fail "conformance.expected has no $setting"
    [[ $got == "$wanted" ]] || fail "setting tests failures errors skipped disabled: got '$got', expected '$wanted'"
    # shellcheck disable=SC2086 # one word per count
    ok "conformance suite, $2: $(printf '%s tests, %s failed, %s errors, %s skipped, %s disabled' ${got#* })"
}

# counts DIR: tests, failures, errors, skipped, and disabled.
counts() {
    local name
    for name in tests failures errors skipped disabled; do
        if [[ -e $1/junit.xml ]]; then
            in_junit "$name" "$1/junit.xml"
        else
            in_print "$name" "$1/printed"
        fi
    done
}

# An attribute of the element around all suites; one that is 0 is left out.
in_junit() {
    local value
    value=$(grep '<testsuites ' "$2" | grep --only-matching --perl-regexp " $1=\"\\K[0-9]+") || value=0
    printf ' %s' "$value"
}

in_print() {
    local -A printed=([tests]=Total [failures]=FAIL [errors]=Error [skipped]=Skip [disabled]=Disabled)
    awk -v name="${printed[$1]}" '$1 ~ "^" name "[.]+:$" { printf " %s", $2 }' "$2"
}

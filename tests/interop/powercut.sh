#!/usr/bin/env bash
# Both servers are killed at random moments, on a file system that then forgets what was not synced.
# Everything that was acknowledged is there afterwards, and what was interrupted goes on.
# BERTH_ROUNDS says how often; `make test-soak` does it 200 times.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/interop/crash.sh
. "$(dirname "$0")/crash.sh"

prepare() {
    [[ -c /dev/fuse ]] || skip "/dev/fuse is missing, so nobody can mount such a file system"
    need_binaries
    need_programs crash powercut
}

enter_sandbox prepare

crash --powercut --data "$scratch/site"

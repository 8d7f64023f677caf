#!/usr/bin/env bash
# Each server is killed with SIGKILL at random moments while clients push and authctl administers.
# Everything that was acknowledged is there afterwards, and what was interrupted goes on.
# BERTH_ROUNDS says how often; `make test-soak` does it 200 times.
# shellcheck source=tests/interop/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/interop/crash.sh
. "$(dirname "$0")/crash.sh"

need_binaries
need_programs crash
crash --victim registry
crash --victim auth

# shellcheck shell=bash
# Sourced by kill.sh and powercut.sh: the program that kills the servers while clients push.

rounds=${BERTH_ROUNDS:-20}

# crash ARGUMENTS...: prints a line for each group of checks.
crash() { "$programs/crash" --bin "$bin" --rounds "$rounds" "$@"; }

#!/usr/bin/env bash
# Tests of the program as a user calls it: run.sh DMC [CASE...]. Every *.test file here is a shell script made of
#
#     t "an unknown option names the nearest one"
#     run "$DMC" run --tmep 1 model
#     status 2
#     err "did you mean --temp"
#
# and runs in an empty directory of its own. After `run`, `status N` checks the exit status, `out RE` and `err RE` look for an
# extended regular expression in what was printed, `no_out` and `no_err` want nothing, `is FILE` compares stdout with a file
# of tests/cli/golden, and `ok COMMAND` wants any command to succeed. `skip REASON` leaves the test out.
# Set for the scripts: DMC, ROOT (the repository), DATA (real models and texts; may not exist).
set -u
here=$(cd "$(dirname "$0")" && pwd)
export ROOT=${here%/tests/cli} DATA=${here%/tests/cli}/../shared/data
DMC=$(realpath "${1:-$ROOT/build/dmc}")
export DMC
shift
[ -x "$DMC" ] || { echo "usage: run.sh DMC [CASE...]" >&2; exit 2; }
[ $# -gt 0 ] || set -- "$here"/*.test

scratch=$(mktemp -d)
trap 'chmod -R u+rwx "$scratch"; rm -rf "$scratch"' EXIT
for case in "$@"; do
    case=$(realpath "$case")
    mkdir "$scratch/work"
    # shellcheck disable=SC2016
    (cd "$scratch/work" && [ -r "$case" ] && timeout 300 bash -c '. "$0/lib.sh"; . "$1"; done_with_test' "$here" "$case") < /dev/null \
        || { ended=$?; echo "FAIL ${case##*/}: the script itself ended with status $ended"; }
    chmod -R u+rwx "$scratch/work"
    rm -rf "$scratch/work"
done | tee "$scratch/log"

count() { grep -c "^$1 " "$scratch/log"; }
failed=$(count FAIL)
echo "$(count ok) passed, $failed failed, $(count skip) skipped"
[ "$failed" = 0 ]

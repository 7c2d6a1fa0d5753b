#!/usr/bin/env bash
# Writes the man pages from the option tables of the program: make.sh [DMC] [OUTPUT DIRECTORY]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dmc=${1:-$here/../../build/dmc}
out=${2:-$here}
"$dmc" help --man > "$out/dmc.1"
for command in $("$dmc" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    "$dmc" help --man "$command" > "$out/dmc-$command.1"
done

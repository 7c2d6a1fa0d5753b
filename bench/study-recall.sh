#!/usr/bin/env bash
# The study on the shipped story model, which finds again what it has read: all methods, judged by recall too. Needs no data but what it writes itself;
# about an hour and a half on two free cores. What is there is kept: after a kill the same command goes on, and ends with the same bits.
#   bench/study-recall.sh [OUT]      default build/study-recall; report: OUT/table/report.html
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
dmc=$(realpath -m "${DMC:-$root/build/dmc}")
out=${1:-$root/build/study-recall}
. "$here/folder.sh"
need "$dmc"
begin_folder "$out" "$here/study-recall.sh" "$root/models/story.gguf"
if [ ! -e text/done ]; then
    cp "$root/models/story.gguf" story.gguf
    "$dmc" story -o text/train.txt --n 20000 --seed 61 --length 400 --questions 10
    "$dmc" story -o text/dev.txt --n 200 --seed 62 --length 400 --questions 10
    "$dmc" story -o text/held.txt --n 200 --seed 63 --length 400 --questions 10
    touch text/done
fi
"$dmc" study "$here/study-recall.json" -o table

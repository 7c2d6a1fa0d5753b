#!/usr/bin/env bash
# The study on retrieval: the shipped story model learns to look up pairs of a JSON object in a minute; then the main rows, judged by how many values they
# find. Needs no data but what it writes itself; three quarters of an hour on two free cores. What is there is kept: after a kill the same command goes on.
#   bench/study-retrieval.sh [OUT]      default build/study-retrieval; report: OUT/table/report.html
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
dmc=$(realpath -m "${DMC:-$root/build/dmc}")
out=${1:-$root/build/study-retrieval}
. "$here/folder.sh"
need "$dmc"
begin_folder "$out" "$here/study-retrieval.sh" "$here/retrieval_text.py" "$root/models/story.gguf"
if [ ! -e text/done ]; then
    "$dmc" story -o text/train.txt --n 20000 --seed 91 --length 400 --questions 10
    "$dmc" story -o text/dev.txt --n 200 --seed 92 --length 400 --questions 10
    "$dmc" story -o text/held.txt --n 200 --seed 93 --length 400 --questions 10
    python3 "$here/retrieval_text.py" text
    touch text/done
fi
if [ ! -e pairs.gguf ]; then
    last=--overwrite
    [ ! -e pairs.gguf.state ] || last=--resume
    "$dmc" train --init "$root/models/story.gguf" --data text/train-pairs.txt text/train.txt --documents separate --weight-decay 0 --steps 500 --warmup 30 \
        --ctx 576 --batch 7 --lr 0.002 --math bf16 --eval-every 0 -o pairs.gguf "$last"
fi
"$dmc" study "$here/study-retrieval.json" -o table

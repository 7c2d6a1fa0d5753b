#!/usr/bin/env bash
# The study from nothing: its text, its base model of 10.8 M parameters (about an hour on two free cores), then every row and measure of
# bench/study.json (some hours). What is there is kept: after a kill the same command goes on, and ends with the same bits.
#   bench/study.sh [DATA [OUT]]      DATA: the folder with the corpora, default ../shared/data; OUT: default build/study; report: OUT/table/report.html
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) root=$(cd "$(dirname "$0")/.." && pwd)
dmc=$(realpath "${DMC:-$root/build/dmc}") data=$(realpath "${1:-$root/../shared/data}") out=${2:-$root/build/study}
mkdir -p "$out/text"
cd "$out"
if [ ! -e text/done ]; then
    python3 "$here/study_text.py" "$data" text
    "$dmc" story -o text/words.txt --kind copy --n 12000 --seed 46 --length 120
    "$dmc" story -o text/stories.txt --n 2600 --seed 41 --length 300 --questions 10
    "$dmc" story -o text/facts.txt --kind facts --n 9000 --seed 42 --length 120 --questions 0
    "$dmc" story -o text/held-stories.txt --n 200 --seed 43 --length 300 --questions 10
    "$dmc" story -o text/dev-stories.txt --n 200 --seed 45 --length 300 --questions 10
    touch text/done
fi
train() { # name, options of dmc train
    local name=$1 last=--overwrite
    shift
    [ ! -e "$name.gguf" ] || return 0
    [ ! -e "$name.gguf.state" ] || last=--resume
    "$dmc" train "$@" --math bf16 --eval-every 0 -o "$name.gguf" "$last"
}
# First it learns to copy: heads that look back for what they have seen do not come by themselves in so short a training, and not where a sample
# begins in the middle of a text (doc/attempts.md). Then to look up, then everything.
train copy --data text/copy.txt text/words.txt --documents separate --vocab 4096 --max-ctx 1024 \
    --tokenizer-text text/books.txt text/wiki.txt text/tales.txt text/pairs.txt text/needles.txt text/stories.txt \
    --layers 8 --width 320 --heads 8 --head-dim 32 --ff 896 --steps 1200 --warmup 40 --ctx 128 --batch 32 --lr 0.002
train facts --init copy.gguf --data text/copy.txt text/words.txt text/facts.txt text/pairs.txt text/needles.txt --documents separate \
    --steps 500 --warmup 20 --ctx 512 --batch 8 --lr 0.0015
train base --init facts.gguf --data text/books.txt text/wiki.txt text/tales.txt text/pairs.txt text/needles.txt text/stories.txt text/facts.txt \
    --held-out text/dev.txt --steps 2000 --warmup 40 --ctx 512 --batch 16 --lr 0.0015
"$dmc" study "$here/study.json" -o table

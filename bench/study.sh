#!/usr/bin/env bash
# The study from nothing: its text, its base model of 11 M parameters (about an hour on two free cores), then every row and measure of
# bench/study.json (some hours). What is there is kept: after a kill the same command goes on, and ends with the same bits.
#   bench/study.sh [DATA [OUT]]      DATA: the folder with the corpora, default ../shared/data; OUT: default build/study; report: OUT/table/report.html
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
dmc=$(realpath -m "${DMC:-$root/build/dmc}")
data=$(realpath -m "${1:-$root/../shared/data}")
out=${2:-$root/build/study}
. "$here/folder.sh"
need "$dmc" "$data"/corpus-{gutenberg,war-and-peace,wikitext2-raw-train-slice,wikitext2-raw-test,tinystories-2m,tinystories-v2,tinystories-valid}
begin_folder "$out" "$here/study.sh" "$here/study_text.py"
if [ ! -e text/done ]; then
    "$dmc" story -o text/words.txt --kind copy --n 12000 --seed 46 --length 120
    "$dmc" story -o text/facts.txt --kind facts --n 30000 --seed 42 --length 120 --questions 0
    "$dmc" story -o text/long-facts.txt --kind facts --n 3000 --seed 44 --length 300 --questions 0
    "$dmc" story -o text/stories.txt --n 9000 --seed 41 --length 300 --questions 10
    "$dmc" story -o text/held-stories.txt --n 200 --seed 43 --length 300 --questions 10
    "$dmc" story -o text/dev-stories.txt --n 200 --seed 45 --length 300 --questions 10
    python3 "$here/study_text.py" "$data" text
    touch text/done
fi
train() { # name, options of dmc train
    local name=$1 last=--overwrite
    shift
    [ ! -e "$name.gguf" ] || return 0
    [ ! -e "$name.gguf.state" ] || last=--resume
    "$dmc" train "$@" --math bf16 --eval-every 0 -o "$name.gguf" "$last"
}
# Heads that look back for what they have seen do not come by themselves in so short a training (doc/attempts.md). So first few words, said again
# and again; then to look up; then longer texts and more words; then everything.
drill=(--documents separate --weight-decay 0 --warmup 30 --lr 0.0012)
train words --data text/words.txt "${drill[@]}" --steps 1000 --ctx 128 --batch 16 --layers 4 --width 448 --heads 16 --head-dim 32 --ff 1024 --vocab 4096 --max-ctx 1024 \
    --tokenizer-text text/books.txt text/wiki.txt text/tales.txt text/pairs.txt text/needles.txt text/stories.txt
train facts --init words.gguf --data text/facts.txt text/words.txt "${drill[@]}" --steps 900 --ctx 160 --batch 16
train look --init facts.gguf --data text/stories.txt text/long-facts.txt text/copy.txt "${drill[@]}" --steps 1200 --ctx 512 --batch 8
train base --init look.gguf --data text/books.txt text/wiki.txt text/tales.txt text/stories.txt text/long-facts.txt text/copy.txt text/pairs.txt text/needles.txt \
    --held-out text/dev.txt --steps 2000 --warmup 40 --ctx 512 --batch 16 --lr 0.0012
"$dmc" study "$here/study.json" -o table

#!/usr/bin/env bash
# The text of the study and its base model, 10.8 M parameters, from nothing: about an hour on two free cores, resumed after a kill.
#   bench/study_base.sh [DATA [OUT]]      DATA: the folder with the corpora (bench/study_text.py names them); default ../shared/data build/study
set -euo pipefail
cd "$(dirname "$0")/.."
dmc=${DMC:-$PWD/build/dmc} data=${1:-../shared/data} out=${2:-build/study}
mkdir -p "$out/text"
if [ ! -e "$out/text/done" ]; then
    python3 bench/study_text.py "$data" "$out/text"
    "$dmc" story -o "$out/text/stories.txt" --n 2600 --seed 41 --length 300 --questions 10
    "$dmc" story -o "$out/text/facts.txt" --kind facts --n 6000 --seed 42 --length 120 --questions 0
    "$dmc" story -o "$out/text/held-stories.txt" --n 200 --seed 43 --length 300 --questions 10
    "$dmc" story -o "$out/text/dev-stories.txt" --n 200 --seed 45 --length 300 --questions 10
    touch "$out/text/done"
fi
cd "$out/text"
train() { # name, options of dmc train
    local name=$1 last=--overwrite
    shift
    [ ! -e "../$name.gguf" ] || return 0
    [ ! -e "../$name.gguf.state" ] || last=--resume
    "$dmc" train "$@" --math bf16 --eval-every 0 -o "../$name.gguf" "$last"
}
# First it learns to copy: attention that looks back for what it has seen does not come by itself in so short a training. Then to look up, then
# everything.
train copy --data copy.txt --tokenizer-text books.txt wiki.txt tales.txt pairs.txt needles.txt stories.txt --vocab 4096 \
    --layers 8 --width 320 --heads 8 --head-dim 32 --ff 896 --max-ctx 1024 --steps 700 --warmup 40 --ctx 128 --batch 32 --lr 0.003
train facts --init ../copy.gguf --data copy.txt facts.txt pairs.txt needles.txt --steps 500 --warmup 20 --ctx 256 --batch 16 --lr 0.002
train base --init ../facts.gguf --data books.txt wiki.txt tales.txt pairs.txt needles.txt stories.txt facts.txt --held-out dev.txt \
    --steps 2000 --warmup 40 --ctx 512 --batch 16 --lr 0.002

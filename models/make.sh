#!/usr/bin/env bash
# Makes the shipped models, story.gguf and story-dmc4.gguf, from nothing: text by `dmc story`, weights by `dmc train` and `dmc retrofit`.
# About a quarter of an hour on two free cores. The same program gives the same bits, whatever the
# number of threads.
#   models/make.sh [DIRECTORY]      for the text and what lies between; default build/models
set -euo pipefail
cd "$(dirname "$0")/.."
dmc=$PWD/build/dmc here=$PWD/models
mkdir -p "${1:-build/models}"
cd "${1:-build/models}"

# Text. Words for the tokenizer; drills that teach to copy; facts told and asked again and again, short and long; stories.
"$dmc" story -o words.txt --n 500 --seed 14 --length 400 --questions 10
"$dmc" story -o copy.txt --kind copy --n 40000 --seed 11 --length 120
"$dmc" story -o copy-held.txt --kind copy --n 100 --seed 15 --length 120
"$dmc" story -o facts.txt --kind facts --n 60000 --seed 31 --length 120 --questions 0
"$dmc" story -o facts-held.txt --kind facts --n 100 --seed 32 --length 120 --questions 0
"$dmc" story -o facts-long.txt --kind facts --n 20000 --seed 33 --length 380 --questions 0
"$dmc" story -o story.txt --n 30000 --seed 12 --length 400 --questions 10
"$dmc" story -o held.txt --n 200 --seed 13 --length 400 --questions 10

# A model of 3 layers, 8 heads of 16: first it learns to copy, then to look up, then stories.
common=(--documents separate --weight-decay 0 --overwrite)
"$dmc" train --data copy.txt --held-out copy-held.txt --tokenizer-text words.txt --layers 3 --width 128 --heads 8 --ff 256 --vocab 896 \
    --max-ctx 1024 "${common[@]}" --steps 800 --warmup 30 --ctx 128 --batch 16 --lr 0.003 -o copy.gguf
"$dmc" train --init copy.gguf --data copy.txt facts.txt --held-out facts-held.txt "${common[@]}" --steps 600 --warmup 60 --ctx 160 --batch 16 \
    --lr 0.002 -o facts.gguf
"$dmc" train --init facts.gguf --data facts-long.txt story.txt --held-out held.txt "${common[@]}" --steps 900 --warmup 30 --ctx 576 --batch 7 \
    --lr 0.002 -o story.gguf
"$dmc" convert story.gguf "$here/story.gguf" --type f16 --overwrite

# Its compressed self: the default recipe, but with the published hinge.
"$dmc" retrofit story.gguf --data story.txt --held-out held.txt --cr 4 --steer 0 --documents separate --ctx 576 --batch 7 --steps 480 --overwrite \
    -o story-dmc4.gguf
"$dmc" convert story-dmc4.gguf "$here/story-dmc4.gguf" --type f16 --overwrite

for model in story story-dmc4; do
    "$dmc" eval recall "$here/$model.gguf" --data held.txt --window-baseline auto
done

#!/usr/bin/env bash
# What a 4x retrofit needs: TinyStories-656K, more and more steps of 4096 tokens, the default recipe beside the published constants (--recipe paper), each beside
# the same model trained on without compression by the same schedule. Measured through the real cache on the half of the validation file that the recipe was not
# chosen by.
#   bench/recipe.sh [DATA] [OUT]      results go to bench/results/recipe.csv; about half an hour on two free cores
#   OURS="60 120" PAPER="1200" bench/recipe.sh    other numbers of steps: results go to OUT/recipe.csv
set -euo pipefail
shopt -s inherit_errexit
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/folder.sh"
data=$(realpath -m "${1:-$root/../shared/data}")
out=$(realpath -m "${2:-$root/build/bench}")
dmc=$(realpath -m "${DMC:-$root/build/dmc}")
cd "$root"
model=$data/weights-tinystories-656k
text=("$data/corpus-tinystories-2m/tinystories_sample.txt" "$data/corpus-tinystories-v2/tinystories_10k.txt")
need "$dmc" "$model" "${text[@]}" "$data/corpus-tinystories-valid"
csv=bench/results/recipe.csv
[ -z "${OURS+x}${PAPER+x}" ] || csv=$out/recipe.csv
mkdir -p "$out" bench/results
tail -c +400001 "$data/corpus-tinystories-valid/tinystories_val.txt" > "$out/second-half.txt"
machine=$(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo) commit=$(git describe --always --dirty)
echo "recipe,steps,tokens,cr,nll,nll_uncompressed,over_uncompressed_percent,machine,cores,commit" > "$csv.new"
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
measure() { # steps, options of dmc retrofit -> CR and loss
    local steps=$1
    shift
    rm -rf "$out/recipe"
    "$dmc" retrofit "$model" --data "${text[@]}" --ctx 512 --batch 8 --steps "$steps" --eval-every 0 -o "$out/recipe" --overwrite -q "$@" > "$out/recipe.log"
    "$dmc" eval ppl "$out/recipe" --data "$out/second-half.txt" --ctx 512 --json -q > "$out/recipe.json"
    echo "$(field cr < "$out/recipe.json") $(field nll < "$out/recipe.json")"
}
compare() { # recipe, steps
    local recipe=$1 steps=$2 cr nll none measured
    measured=$(measure "$steps" --recipe "$recipe" --method none --cr 4)
    read -r _ none <<< "$measured"
    measured=$(measure "$steps" --recipe "$recipe" --cr 4)
    read -r cr nll <<< "$measured"
    python3 -c 'import sys; r, s, cr, nll, none, m, n, c = sys.argv[1:]; cr, nll, none = float(cr), float(nll), float(none)
print(f"{r},{s},{int(s) * 4096},{cr:.3f},{nll:.4f},{none:.4f},{100 * (nll / none - 1):+.2f},\"{m}\",{n},{c}")' \
        "$recipe" "$steps" "$cr" "$nll" "$none" "$machine" "$(nproc)" "$commit" | tee -a "$csv.new"
}
for steps in ${OURS-20 30 60 120 240 480}; do compare default "$steps"; done
for steps in ${PAPER-600 1200 2400}; do compare paper "$steps"; done
mv "$csv.new" "$csv"
echo "written: $csv"

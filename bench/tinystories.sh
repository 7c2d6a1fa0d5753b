#!/usr/bin/env bash
# Retrofits TinyStories-656K on the two TinyStories slices and measures it through the real cache on the validation file, which is never
# trained on, beside the same model trained on without compression. About 10 minutes on two free cores.
#   bench/tinystories.sh [DATA] [OUT]      DATA: directory with the weights and corpora; results go to bench/results/tinystories-656k.csv
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:-../shared/data} out=${2:-build/bench}
model=$data/weights-tinystories-656k
text=("$data/corpus-tinystories-2m/tinystories_sample.txt" "$data/corpus-tinystories-v2/tinystories_10k.txt")
valid=$data/corpus-tinystories-valid/tinystories_val.txt
csv=bench/results/tinystories-656k.csv
mkdir -p "$out" bench/results
# Attempts were compared on the first 64 windows of the file; its second half was not looked at before.
tail -c +400001 "$valid" > "$out/second-half.txt"
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
machine=$(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), cores=$(nproc) commit=$(git describe --always --dirty)
echo "run,method,cr_target,delay,steps,tokens,minutes,tokens_per_second,cr,nll,over_control_percent,cr_second_half,nll_second_half,over_control_second_half_percent,machine,cores,commit" > "$csv.new"
control='' control2=''
run() { # name, options of dmc retrofit
    local name=$1 r e h
    shift
    r=$(build/dmc retrofit "$model" --data "${text[@]}" --ctx 512 -o "$out/$name" --overwrite --json "$@")
    e=$(build/dmc eval ppl "$out/$name" --data "$valid" --ctx 512 --json)
    h=$(build/dmc eval ppl "$out/$name" --data "$out/second-half.txt" --ctx 512 --json)
    local nll nll2
    nll=$(field nll <<< "$e") nll2=$(field nll <<< "$h")
    control=${control:-$nll} control2=${control2:-$nll2}
    python3 - "$name" "$nll" "$control" "$nll2" "$control2" "$(field cr <<< "$e")" "$(field cr <<< "$h")" "${machine%,}" "$cores" "$commit" "$r" >> "$csv.new" << 'PY'
import json, sys
name, nll, control, nll2, control2, cr, cr2, machine, cores, commit, r = sys.argv[1:]
r, nll, control, nll2, control2 = json.loads(r), float(nll), float(control), float(nll2), float(control2)
print(name, "none" if r["cr_target"] == 1 else "dmc", r["cr_target"], r["delay"], r["steps"], int(r["tokens"]), f'{r["seconds"] / 60:.2f}',
      f'{r["tokens_per_second"]:.0f}', f"{float(cr):.3f}", f"{nll:.4f}", f"{100 * (nll / control - 1):+.2f}", f"{float(cr2):.3f}", f"{nll2:.4f}",
      f"{100 * (nll2 / control2 - 1):+.2f}", '"' + machine + '"', cores, commit, sep=",")
PY
    tail -n 1 "$csv.new"
}
steps=480
run control --method none --steps $steps
run dmc-cr2 --cr 2 --steps $steps
run dmc-cr4 --cr 4 --steps $steps
run dmc-cr2-delay0 --cr 2 --delay 0 --steps $steps
run dmc-cr4-delay0 --cr 4 --delay 0 --steps $steps
mv "$csv.new" "$csv"
echo "written: $csv"

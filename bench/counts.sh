#!/usr/bin/env bash
# Counts the instructions of three small runs under callgrind and compares them with bench/counts.csv: times on shared machines cannot be
# tested, counts can. Fails where one grew by more than 3 %.
#
#   bench/counts.sh [DMC]            default: build/dmc
#   bench/counts.sh --update [DMC]   writes bench/counts.csv
#
# One thread, AVX2 kernels (valgrind 3.19 knows no AVX-512). Counted is what runs inside of dmc_batch_feed or dmc_step_bench.
# Another compiler makes other code: then nothing is compared.
set -euo pipefail
cd "$(dirname "$0")/.."

update=false
[ "${1:-}" = --update ] && { update=true; shift; }
dmc=${1:-build/dmc} table=bench/counts.csv
command -v valgrind > /dev/null || { echo "valgrind is missing (Debian: apt-get install valgrind)" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
compiler=$(readelf -p .comment "$dmc" | sed -n 's/^ *\[ *0\] *//p')

count() { # name, function, options of dmc bench
    local name=$1 inside=$2 total
    shift 2
    valgrind --tool=callgrind --toggle-collect="$inside" --callgrind-out-file="$scratch/$name.%p" "$dmc" bench --threads 1 --tier 2 \
        --repeat 1 --no-floor --quiet --json "$@" > "$scratch/$name.log" 2>&1 || { head -n 40 "$scratch/$name.log" >&2; return 1; }
    total=$(cat "$scratch/$name".* | awk '/^totals: / {n += $2} END {print n}')
    echo "$name,$total"
}

{
    echo run,instructions
    count decode dmc_batch_feed --shape 15m --type q8_0 --work decode --generate 16
    count prefill dmc_batch_feed --shape 15m --type q8_0 --work prefill --prompt 64
    count train dmc_step_bench --shape tiny --work train --batch 2 --ctx 64
} > "$scratch/counts"

if $update; then
    { echo "run,instructions,compiler"; sed "1d; s/\$/,\"$compiler\"/" "$scratch/counts"; } > "$scratch/table"
    mv "$scratch/table" "$table"
    cat "$table"
    exit
fi
if ! grep -qF "$compiler" "$table"; then
    echo "skip counts: $table was made with another compiler than $compiler"
    exit
fi
awk -F, 'NR == FNR {if (FNR > 1) old[$1] = $2; next}
    $1 == "run" {next}
    {growth = 100 * ($2 / old[$1] - 1); bad = growth > 3; failed += bad
     printf "%s %s: %d instructions, %+.2f %% against %d\n", bad ? "FAIL" : "ok", $1, $2, growth, old[$1]}
    END {if (failed) print "If that is meant: bench/counts.sh --update"; exit failed > 0}' "$table" "$scratch/counts"

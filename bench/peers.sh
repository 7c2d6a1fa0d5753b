#!/usr/bin/env bash
# Measures dmc beside llama.cpp: the same weights in the same file, the same threads, one after the other in turns.
#
#   bench/peers.sh [decode|depth|gqa|batch|prefill|all]...        default: all
#
# decode   one sequence, shallow: 1.1B in Q8_0, Q4_0, BF16
# depth    one sequence behind up to 8192 tokens, 110M, and the prefill there; CR 4 and 8 beside it
# gqa      one sequence behind 4096 tokens, 1.1B, 4 KV heads for 32; CR 4 beside it
# batch    16 sequences of 256 and 1024 tokens, 110M
# prefill  512 tokens of nothing, 110M and 1.1B
#
# Writes bench/results/peers.csv (OUT=FILE: elsewhere) and prints each ratio. The first run builds llama.cpp from the source package
# of llama-cpp-python and makes models with random weights, both in CACHE (default ~/.cache/dmc-bench): 5 minutes, 5 GB.
#
#   DMC=FILE           the program; default build/dmc
#   LLAMA_BENCH=FILE   a llama-bench that is there already; llama-batched-bench lies beside it
#   PEERS="NAME=FILE"  more of the kind, such as ik_llama.cpp's, separated by spaces
#   ROUNDS=5           turns; medians are written
#   THREADS=N          default: all cores
set -euo pipefail
cd "$(dirname "$0")/.."

dmc=${DMC:-build/dmc}
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dmc-bench}
[ -x "$dmc" ] || { echo "$dmc is not there: cmake -S . -B build -G Ninja && cmake --build build" >&2; exit 1; }
for what in "$@"; do
    case $what in
        decode | depth | gqa | batch | prefill | all) ;;
        *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
mkdir -p "$cache"

build_llama() {
    local source log=$cache/build.log
    echo "Building llama.cpp in $cache (once; the log is build.log)" >&2
    python3 -m pip download --no-deps --no-binary llama-cpp-python -d "$cache" llama-cpp-python > "$log" 2>&1 ||
        { tail -n 5 "$log" >&2; echo "The source package of llama-cpp-python could not be had; LLAMA_BENCH=FILE takes a binary." >&2; exit 1; }
    tar -xzf "$(ls -t "$cache"/llama_cpp_python-*.tar.gz | head -n 1)" -C "$cache"
    source=$(ls -td "$cache"/llama_cpp_python-*/vendor/llama.cpp | head -n 1)
    # gcc 12 drops the stores to the tile configuration, of which its intrinsic seems to read eight bytes, and AMX then traps.
    sed -i 's/^\( *\)_tile_loadconfig(&tc);/\1__asm__ volatile("" ::"r"(\&tc) : "memory");\n&/' "$source/ggml/src/ggml-cpu/amx/mmq.cpp"
    cmake -S "$source" -B "$cache/llama" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF \
        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TOOLS=ON >> "$log" 2>&1 &&
        cmake --build "$cache/llama" -j "$(nproc)" --target llama-bench llama-batched-bench >> "$log" 2>&1 ||
        { grep -m 5 -i 'error' "$log" >&2; exit 1; }
}

llama=${LLAMA_BENCH:-$cache/llama/bin/llama-bench}
[ -x "$llama" ] || { [ -z "${LLAMA_BENCH:-}" ] && build_llama; }
[ -x "$llama" ] || { echo "$llama is not there" >&2; exit 1; }
peers=(--peer "llama.cpp=$llama")
for peer in ${PEERS:-}; do peers+=(--peer "$peer"); done
exec python3 bench/peers_run.py --dmc "$dmc" --cache "$cache" --out "${OUT:-bench/results/peers.csv}" --rounds "${ROUNDS:-5}" \
    --threads "${THREADS:-$(nproc)}" "${peers[@]}" "${@:-all}"

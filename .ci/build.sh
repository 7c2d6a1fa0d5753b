#!/usr/bin/env bash
# Configures and builds: build.sh DIR [CMAKE OPTIONS] [-- TARGETS], all targets if none is named. On a terminal shows
# ninja's progress, elsewhere a line and, if something goes wrong, the errors of DIR/build.log.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=$1
shift
options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    options+=("$1")
    shift
done
targets=()
[ $# -le 1 ] || targets=(--target "${@:2}")
mkdir -p "$dir"
fail() {
    { grep -A 20 '^FAILED' "$dir/build.log" || tail -n 40 "$dir/build.log"; } | head -n 100 >&2
    echo "Building $dir failed; the whole log is in $dir/build.log." >&2
    exit 1
}
echo "Building $dir"
generator=()
[ -f "$dir/CMakeCache.txt" ] || generator=(-G Ninja)
cmake -S . -B "$dir" "${generator[@]}" "${options[@]}" > "$dir/build.log" 2>&1 || fail
if [ -t 1 ]; then
    cmake --build "$dir" "${targets[@]}" -- -k 0 || exit 1
else
    cmake --build "$dir" "${targets[@]}" -- -k 0 >> "$dir/build.log" 2>&1 || fail
fi

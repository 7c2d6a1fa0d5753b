# shellcheck shell=bash
# Sourced by scripts that keep what they have made and go on with it; under their set -euo pipefail.

# Goes into folder $1, makes it (with a folder text in it) if it is not there, and refuses it if it was begun with other files than these ($2 ...).
begin_folder() {
    local folder=$1 made_by
    shift
    made_by=$(cat "$@" | sha256sum)
    mkdir -p "$folder/text"
    cd "$folder" || exit
    if [ -e made-by ] && [ "$(cat made-by)" != "$made_by" ]; then
        echo "$folder was begun by another version of this script: take another folder, or delete it" >&2
        exit 1
    fi
    echo "$made_by" > made-by
}

# Fails unless each of these is there.
need() {
    local path
    for path in "$@"; do
        [ -e "$path" ] || { echo "$path is not there" >&2; exit 1; }
    done
}

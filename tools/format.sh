#!/usr/bin/env bash
# Formats every C file with the .clang-format of the project.
set -euo pipefail
cd "$(dirname "$0")/.."
find include src tools tests examples bench -name '*.[ch]' -print0 | xargs -0 -r clang-format -i --style=file

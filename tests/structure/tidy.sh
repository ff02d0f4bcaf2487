#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy (.clang-tidy) over the project's own sources, as the preset "checks" compiles them. Files that passed are remembered
# by the hash of what the compiler sees of them, so a second call looks only at what changed.
#
#   bash tests/structure/tidy.sh [BUILD_FOLDER] [FILE...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
build=${1:-build-checks}
[ $# -eq 0 ] || shift
command -v clang-tidy >/dev/null || { echo "tidy.sh: no clang-tidy (Debian: apt-get install clang-tidy)" >&2; exit 2; }
[ -f "$build/compile_commands.json" ] || { echo "tidy.sh: no $build/compile_commands.json: cmake --preset checks" >&2; exit 2; }

files=("$@")
if [ ${#files[@]} -eq 0 ]; then
  mapfile -t files < <(find runtime model data launch tests/unit -name '*.cpp' | sort)
fi
passed=$build/tidy-passed
mkdir -p "$passed"

# The compiler GCC is built with options that clang does not know.
check() {
  local file=$1 root=$2 build=$3 passed=$4 key
  key=$({ clang-tidy --version; cat .clang-tidy "$file"; g++ -std=c++20 -I. -MM -MG "$file" 2>/dev/null | tr -s ' ' '\n' |
    grep '\.h$' | sort -u | xargs -r cat 2>/dev/null; } | sha256sum | cut -c1-40)
  if [ -e "$passed/$key" ]; then return 0; fi
  if clang-tidy --quiet -p "$build" --extra-arg=-Wno-unknown-warning-option "$root/$file" 2>"$passed/$key.err" >"$passed/$key.out"; then
    mv "$passed/$key.out" "$passed/$key"
    rm -f "$passed/$key.err"
  else
    cat "$passed/$key.out"
    grep -v 'warnings generated\|warnings treated as errors' "$passed/$key.err" || true
    rm -f "$passed/$key.out" "$passed/$key.err"
    return 1
  fi
}
export -f check
# shellcheck disable=SC2016  # expanded by the inner shell
printf '%s\n' "${files[@]}" | xargs -P "${NEOLOOM_JOBS:-$(nproc)}" -I{} bash -c 'check "$@"' _ {} "$root" "$build" "$passed" ||
  { echo "tidy.sh: findings above" >&2; exit 1; }
echo "tidy.sh: ${#files[@]} files clean"

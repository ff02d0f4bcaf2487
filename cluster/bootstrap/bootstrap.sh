#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what the build needs: Debian packages (packages.txt) and a private Python prefix with the torch wheel
# (requirements.txt) and Arrow (requirements-parquet.txt). A second call changes nothing and takes under a second.
#
#   bash cluster/bootstrap/bootstrap.sh                 build and run
#   bash cluster/bootstrap/bootstrap.sh --cpu           the same for machines without a GPU: no CUDA libraries, in a
#                                                       prefix of its own
#   bash cluster/bootstrap/bootstrap.sh --tests         also the reference implementations that the tests compare with, and
#                                                       --gpu_tools
#   bash cluster/bootstrap/bootstrap.sh --gpu_tools     also CUDA's compiler, for neoloom's own kernels, and headers of
#                                                       cuDNN graphs, for probes (370 MB)
#   bash cluster/bootstrap/bootstrap.sh --checks        also clang and clang-tidy (packages-checks.txt)
#   bash cluster/bootstrap/bootstrap.sh --print-prefix  print the prefix's folder and exit
#   bash cluster/bootstrap/bootstrap.sh --no-system     install no Debian packages: you have installed them yourself
#   ... --requirements FOLDER                           Python packages of other versions: oldest/, or what newest.py
#                                                       writes
#
# NEOLOOM_DEPS: folder of the prefixes (default ~/.cache/neoloom/deps), one per set of versions; clones share it.
# Exit code 2: this user may not install what is missing; one line names each missing thing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
deps=${NEOLOOM_DEPS:-${XDG_CACHE_HOME:-$HOME/.cache}/neoloom/deps}

say() { printf 'bootstrap: %s\n' "$*" >&2; }

# The system's Python comes first: shims of version managers in PATH change with the folder they are called in.
find_python() {
  if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else command -v python3; fi
}

prefix_of() {
  local python=$1 version key
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  key=$(cat "$requirements/requirements.txt" "$requirements/constraints.txt" | sha256sum | cut -c1-12)
  echo "$deps/py$version-$key$kind"
}

list_packages() {
  local files=("$here/packages.txt")
  if [ $checks = 1 ]; then files+=("$here/packages-checks.txt"); fi
  sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "${files[@]}"
}

missing_packages() {
  list_packages | while read -r package; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^.i' || echo "$package"
  done
}

# Prints the command that gives root's rights, nothing for root itself; fails when there is none.
privilege() {
  if [ "$(id -u)" = 0 ]; then return 0; fi
  command -v sudo >/dev/null || return 1
  if [ -t 0 ] || sudo -n true 2>/dev/null; then echo sudo; else return 1; fi
}

install_packages() {
  local missing sudo apt
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "this system has no apt; install the following yourself (with development files), then use --no-system:"
    list_packages | sed 's/^/missing: /' >&2
    return 2
  fi
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! sudo=$(privilege); then
    printf 'missing: Debian package %s\n' "${missing[@]}" >&2
    say "no root rights here; ask an administrator to run: apt-get install ${missing[*]}"
    return 2
  fi
  say "installing ${missing[*]}"
  apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0)
  if [ -n "$sudo" ]; then apt=("$sudo" "${apt[@]}"); fi
  # Package lists may be absent or out of date: refresh them only when the installation asks for it.
  if ! "${apt[@]}" install --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
    "${apt[@]}" update >"$log" 2>&1 || { tail -n 20 "$log" >&2; say "apt-get update failed"; return 2; }
    "${apt[@]}" install --no-install-recommends "${missing[@]}" >"$log" 2>&1 ||
      { tail -n 20 "$log" >&2; say "apt-get install failed"; return 2; }
  fi
}

# stamp FILE...: a text that changes when one of the files does.
stamp() { cat "$@" | sha256sum | cut -c1-64; }

# install_wheels STAMP_NAME FILE...: pip-installs the requirements files once per content.
install_wheels() {
  local mark="$prefix/$1" wanted
  shift
  wanted=$(stamp "$@" "$requirements/constraints.txt")
  if [ -f "$mark" ] && [ "$(cat "$mark")" = "$wanted" ]; then return 0; fi
  say "installing $(sed -e 's/#.*//' -e '/^$/d' "$@" | tr '\n' ' ')into $prefix"
  local arguments=() file
  for file in "$@"; do arguments+=(-r "$file"); done
  if [ -n "$kind" ]; then arguments+=(--no-deps "${cpu_libraries[@]}"); fi
  "$prefix/bin/python3" -m pip install --quiet --disable-pip-version-check --no-input \
    -c "$requirements/constraints.txt" "${arguments[@]}" >&2 ||
    { say "pip could not install them (network, index or disk): see above"; return 2; }
  if [ -n "$kind" ]; then drop_gpu_kernels || return 2; fi
  echo "$wanted" >"$mark"
}

# drop_gpu_kernels: the torch wheel has them, and without them no GPU plug-in is built. libtorch_cpu.so still links two
# small libraries of CUDA.
drop_gpu_kernels() {
  local folder missing
  folder=$(echo "$prefix"/lib/python3*/site-packages/torch/lib)
  rm -f "$folder"/libtorch_cuda*.so "$folder"/libtorch_nvshmem.so
  missing=$(ldd "$folder/libtorch_cpu.so" | grep 'not found') || return 0
  say "libtorch_cpu.so lacks libraries that --cpu leaves out (use the set-up without --cpu):" "$missing"
  return 2
}

# install_beside NAME FOLDER WHAT: pip-installs requirements-NAME.txt once per content into a folder of its own, because
# the prefix may have other versions of the same packages.
install_beside() {
  local file=$here/requirements-$1.txt mark=$prefix/.stamp-$1 folder=$prefix/$2
  if [ -f "$mark" ] && [ "$(cat "$mark")" = "$(stamp "$file")" ]; then return 0; fi
  say "installing $3 into $folder"
  rm -rf "$folder"
  "$prefix/bin/python3" -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
    --target "$folder" -r "$file" >&2 ||
    { say "pip could not install it (network, index or disk): see above"; return 2; }
  stamp "$file" >"$mark"
}

make_prefix() {
  mkdir -p "$deps"
  exec 9>"$prefix.lock"
  flock 9  # clones and nodes that share the folder take turns
  if [ ! -x "$prefix/bin/python3" ] || ! "$prefix/bin/python3" -c '' 2>/dev/null; then
    rm -rf "$prefix"
    "$python" -m venv "$prefix" >&2 || { say "$python -m venv failed (Debian: python3-venv)"; return 2; }
  fi
  install_wheels .stamp-runtime "$requirements/requirements.txt" || return 2
  [ "$tests" = 0 ] || install_wheels .stamp-tests "$requirements/requirements.txt" "$oracles" || return 2
  install_beside parquet parquet "Arrow" || return 2
  [ "$gpu_tools" = 0 ] || install_beside gpu gpu-tools "CUDA's compiler and headers of cuDNN graphs"
}

cpu_libraries=(nvidia-cuda-cupti nvidia-cuda-runtime) # of CUDA, which libtorch_cpu.so links; constraints.txt pins them
tests=0 gpu_tools=0 checks=0 print_prefix=0 system=1 kind='' requirements=$here
while [ $# -gt 0 ]; do
  case $1 in
    --cpu) kind=-cpu ;;
    --tests) tests=1 gpu_tools=1 ;;
    --gpu_tools) gpu_tools=1 ;;
    --checks) checks=1 ;;
    --print-prefix) print_prefix=1 ;;
    --no-system) system=0 ;;
    --requirements)
      requirements=${2:?bootstrap: --requirements needs a folder}
      shift
      ;;
    -h | --help) sed -n '3,21s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) say "unknown option $1 (known: --cpu --tests --gpu_tools --checks --print-prefix --no-system --requirements)"; exit 2 ;;
  esac
  shift
done

if [ -n "$kind" ] && [ $((tests + gpu_tools)) != 0 ]; then
  say "--cpu excludes --tests and --gpu_tools: the reference implementations import torch, which needs the CUDA libraries"
  exit 2
fi

if [ $print_prefix = 1 ]; then
  python=$(find_python) || { say "no python3: run bash cluster/bootstrap/bootstrap.sh first"; exit 2; }
  prefix_of "$python"
  exit 0
fi

oracles=$requirements/requirements-tests.txt
if [ ! -f "$oracles" ]; then oracles=$here/requirements-tests.txt; fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
started=$SECONDS
if [ $system = 1 ]; then install_packages || exit $?; fi
python=$(find_python) || { echo "missing: python3" >&2; exit 2; }
prefix=$(prefix_of "$python")
make_prefix || exit $?
say "ready after $((SECONDS - started)) s: $prefix"

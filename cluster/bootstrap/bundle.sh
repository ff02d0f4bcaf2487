#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a bundle of a built neoloom: the program with its libraries, C library and Open MPI, which runs from any folder
# of a Linux without root, Python or a compiler.
#
#   bash cluster/bootstrap/bundle.sh neoloom.tar.xz         a file to unpack there; also .tar.zst and .tar.gz
#   bash cluster/bootstrap/bundle.sh FOLDER                 a folder that is new or empty
#   bash cluster/bootstrap/bundle.sh --cuda cuda.tar.xz     what a GPU needs besides, to unpack over the first
#   ... --build BUILD                                       of this build folder (default: build)
#
# Needs what the build needed, readelf, strip, and the program that compresses. Exit code 2: something is missing here.
set -euo pipefail

fail() { printf 'bundle: %s\n' "$*" >&2; exit 2; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build cuda='' output=''
while [ $# -gt 0 ]; do
  case $1 in
    --cuda) cuda=1 ;;
    --build) build=${2:?bundle: --build needs a folder}; shift ;;
    -h | --help) sed -n '3,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) fail "unknown option $1 (known: --cuda --build)" ;;
    *) [ -z "$output" ] || fail "one FOLDER or FILE, not $output and $1"; output=$1 ;;
  esac
  shift
done
[ -n "$output" ] || fail "names no FOLDER or FILE: bash cluster/bootstrap/bundle.sh neoloom.tar.xz"
for tool in readelf strip ldd dpkg-query; do command -v $tool >/dev/null || fail "needs $tool"; done
case $output in
  *.tar.zst) compress='zstd -19 -T0 -q' ;;
  *.tar.xz) compress='xz -6 -T0' ;;
  *.tar.gz) compress='gzip -6' ;;
  *.tar.* | *.tgz | *.zip) fail "$output: name a folder, or a file that ends in .tar.zst, .tar.xz or .tar.gz" ;;
  *) compress='' ;;
esac
[ -x "$build/neoloom" ] || fail "there is no $build/neoloom: build it first"
if [ -n "$compress" ]; then
  command -v "${compress%% *}" >/dev/null || fail "$output needs ${compress%% *}"
  mkdir -p "$(dirname "$output")"
  work=$(mktemp -d "$(dirname "$output")/.bundle-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  top=$work/neoloom
else
  if [ -n "$(ls -A "$output" 2>/dev/null)" ]; then fail "$output is not empty"; fi
  top=$output
fi
mkdir -p "$top/lib/neoloom"
top=$(cd "$top" && pwd)
lib=$top/lib/neoloom

# The layout below $top: bin has one script under several names; lib/neoloom/programs the programs with their plug-ins,
# glibc the loader and the C library, libraries all others, cuda those for GPUs, run a link to the loader for each
# program, named as the program: mpirun's process is then called mpirun. No folder that Open MPI puts into
# LD_LIBRARY_PATH on another node (lib) has libraries, as the shell there would load them, too.
openmpi=lib/x86_64-linux-gnu/openmpi/lib/openmpi3 # Open MPI's components, below OPAL_PREFIX as Debian's was built
pmix=lib/x86_64-linux-gnu/pmix2                   # the same of PMIx
glibc='^(ld-linux-x86-64|lib(c|m|mvec|dl|rt|pthread|util|resolv|nsl|anl|BrokenLocale|nss_[a-z]+))\.so'
# Networks whose drivers belong to a site: with its own Open MPI, ranks use them.
site_networks='lib(ucp|uct|fabric|ibverbs|psm2|psm_infinipath)\.so'
prefix=$(readlink -f "$(sed -n 's/^NEOLOOM_PYTHON_PREFIX:[A-Z]*=//p' "$build/CMakeCache.txt")")
site_packages=$(echo "$prefix"/lib/python3*/site-packages)

# needs FILE...: "name path" of all libraries that they load, the loader among them. As ldd, but quicker for many files.
needs() {
  local file missing listing
  for file in "$@"; do
    listing=$(LD_TRACE_LOADED_OBJECTS=1 /lib64/ld-linux-x86-64.so.2 "$file")
    if missing=$(grep 'not found' <<<"$listing"); then fail "$file needs what is not here:" "$missing"; fi
    sed -nE 's/^\s*(\S+) => (\/\S+) .*/\1 \2/p; s/^\s*(\/\S+\/(\S+)) \(.*/\2 \1/p' <<<"$listing"
  done | sort -u -k 1,1
}

# put TARGET FILE...: copies into a folder, under the files' own names.
put() {
  local target=$top/$1
  shift
  mkdir -p "$target"
  cp -L --preserve=mode,timestamps "$@" "$target"
}

# put_stripped TARGET FILE...: the same, without symbols.
put_stripped() {
  put "$@"
  local target=$top/$1 file
  shift
  for file in "$@"; do strip --strip-unneeded "$target/${file##*/}"; done
}

# put_libraries FOLDER FILE...: what these files need and the bundle has not; lists where each came from in $sources.
put_libraries() {
  local folder=$1 name path target listing
  shift
  listing=$(needs "$@")
  while read -r name path; do
    target=$lib/$folder
    if [[ $name =~ $glibc ]]; then target=$lib/glibc; fi
    if [ -n "${present[$name]-}" ]; then continue; fi
    present[$name]=1
    mkdir -p "$target"
    path=$(readlink -f "$path")
    # A hard link to the prefix's file, where possible, saves half a gigabyte of writing.
    if [[ $path != "$prefix"/* ]] || ! ln "$path" "$target/$name" 2>/dev/null; then
      cp --preserve=mode,timestamps "$path" "$target/$name"
    fi
    sources+=("$path")
  done <<<"$listing"
}

# put_licences: those of the Debian packages and wheels that the files in $sources came from.
put_licences() {
  local path file record line folder
  local paths system=() records=()
  local -A owner=()
  mapfile -t paths < <(readlink -f "${sources[@]}" | sort -u)
  for path in "${paths[@]}"; do
    file=${path#"$prefix"/*/}
    if [ "$file" = "$path" ]; then
      system+=("$path")
    else # "torch/lib/libc10.so,hash,size" in the list of its wheel
      records+=("$(grep -lsF -- "${file#*site-packages/}," "$site_packages"/*.dist-info/RECORD "$prefix"/parquet/*.dist-info/RECORD || true)")
    fi
  done
  while read -r record; do
    folder=$(dirname "$record")
    path=$top/share/licences/$(basename "$folder" .dist-info)
    mkdir -p "$path"
    (cd "$folder" && find . -type f -regextype egrep -iregex '.*/(licen[cs]e|notice|copying)[^/]*' -exec cp --parents -t "$path" {} +)
  done < <(printf '%s\n' "${records[@]}" | sort -u)
  # "package:amd64: path"; with merged /usr, dpkg knows a file by one of two names.
  while read -r line; do
    file=${line##*: }
    owner[${file#/usr}]=${line%%[:,]*}
  done < <(dpkg-query -S "${system[@]}" "${system[@]#/usr}" 2>/dev/null)
  for path in "${system[@]}"; do
    record=${owner[${path#/usr}]-}
    [ -n "$record" ] || fail "no Debian package has $path"
    put "share/licences/$record" "/usr/share/doc/$record/copyright"
  done
}

declare -A present=()
sources=()
programs=("$build/neoloom")
if [ -f "$build/libneoloom_parquet.so" ]; then programs+=("$build/libneoloom_parquet.so"); fi

if [ -z "$cuda" ]; then
  tools=()
  for name in mpirun orted ompi_info; do
    if ! path=$(command -v $name) || [ ! -d "/usr/$openmpi" ]; then fail "needs Open MPI 4.1 as Debian 12 has it: $name, /usr/$openmpi"; fi
    tools+=("$(readlink -f "$path")")
    put_stripped lib/neoloom/programs "${tools[-1]}"
    [ "$(basename "${tools[-1]}")" = $name ] || mv "$lib/programs/$(basename "${tools[-1]}")" "$lib/programs/$name"
  done
  put_stripped lib/neoloom/programs "${programs[@]}"
  components=()
  for path in "/usr/$openmpi"/mca_*.so; do
    if ! grep -qE "$site_networks|liboshmem" < <(ldd "$path"); then components+=("$path"); fi
  done
  put "$openmpi" "${components[@]}"
  put "$pmix/lib/pmix" "/usr/$pmix"/lib/pmix/*.so
  put "$pmix/share/pmix" "/usr/$pmix"/share/pmix/*.txt
  components+=("/usr/$pmix"/lib/pmix/*.so)
  put_libraries libraries "${programs[@]}" "${tools[@]}" "${components[@]}"
  mkdir -p "$top/share" "$top/etc/openmpi"
  cp -r /usr/share/openmpi "$top/share/openmpi"
  echo "# Parameters of this bundle's Open MPI, one a line: btl_tcp_if_include = eth0" \
    >"$top/etc/openmpi/openmpi-mca-params.conf"
  put bin "$root/cluster/bootstrap/bundled.sh"
  mv "$top/bin/bundled.sh" "$top/bin/neoloom"
  chmod 755 "$top/bin/neoloom"
  mkdir "$lib/run"
  for name in neoloom mpirun orted ompi_info; do
    ln -s ../glibc/ld-linux-x86-64.so.2 "$lib/run/$name"
    [ -e "$top/bin/$name" ] || ln -s neoloom "$top/bin/$name"
  done
  # What the pages call it, and train.sbatch with NEOLOOM_ROOT.
  mkdir "$top/build"
  ln -s ../bin/neoloom "$top/build/neoloom"
  put cluster/local "$root/cluster/local/mpirun.sh"
  put cluster "$root"/cluster/*.md
  put cluster/slurm "$root/cluster/slurm/train.sbatch"
  put configs "$root"/configs/*.yaml
  put . "$root/LICENSE"
  sources+=("${tools[@]}" "${components[@]}")
  put_licences
else
  [ -f "$build/libneoloom_cuda.so" ] || fail "$build has no libneoloom_cuda.so: the set-up without --cpu brings CUDA"
  # What the first bundle has.
  listing=$(needs "${programs[@]}")
  while read -r name _; do present[$name]=1; done <<<"$listing"
  put_stripped lib/neoloom/programs "$build/libneoloom_cuda.so"
  # Libraries that others load at run time: cuDNN's engines, the compiler of kernels, LibTorch's linear algebra.
  loaded=("$site_packages"/nvidia/cudnn/lib/libcudnn_*.so.* "$site_packages"/nvidia/cu13/lib/libnvrtc*.so.*
    "$site_packages"/torch/lib/libtorch_cuda_linalg.so)
  put lib/neoloom/cuda "${loaded[@]}"
  for path in "${loaded[@]}"; do present[${path##*/}]=1; done
  put_libraries cuda "$build/libneoloom_cuda.so" "${loaded[@]}"
  sources+=("${loaded[@]}")
  put_licences
fi

if [ -n "$compress" ]; then
  tar -C "$work" --owner=0 --group=0 --sort=name -I "$compress" -cf "$output.part" neoloom
  mv "$output.part" "$output"
fi
du -sh --apparent-size "$output" | sed 's/^/bundle: /' >&2

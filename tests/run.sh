#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set-up, build, and every test (those of GPUs are skipped where there is none):
#
#   bash tests/run.sh                 release build and all tests
#   bash tests/run.sh --asan          unit tests once more, under AddressSanitizer and UBSan (a build of its own)
#   bash tests/run.sh --tsan          unit tests of the rooms without LibTorch and MPI, under ThreadSanitizer
#   bash tests/run.sh --tidy          clang-tidy over the project's own sources, and clang's front end as a second compiler
#   bash tests/run.sh --tidy-changed  the same over the sources that changed since the last tag
#   bash tests/run.sh --nightly       all of these, one after the other
#   bash tests/run.sh -R parity -V    other arguments go to ctest
#
# NEOLOOM_JOBS: parallel compilers and tests (default: the number of cores; tests at most 2, they start ranks of their own).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

jobs=${NEOLOOM_JOBS:-$(nproc)}
phases=()

phase() { # NAME COMMAND...: runs it, remembers how long it took
  local name=$1 started=$SECONDS code=0
  shift
  printf '\n== %s\n' "$name"
  "$@" || code=$?
  phases+=("$(printf '%-22s %5d s%s' "$name" $((SECONDS - started)) "$([ $code = 0 ] || echo "  failed ($code)")")")
  return $code
}

report() {
  local code=$?
  printf '\n== time taken\n'
  if [ ${#phases[@]} -gt 0 ]; then printf '%s\n' "${phases[@]}"; fi
  exit $code
}
trap report EXIT

# Ranks and threads of the tests share few cores: waiting ranks must not spin.
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export CTEST_OUTPUT_ON_FAILURE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

# The prefix is passed each time: a build folder would keep the one of older requirements.
configure() { cmake --preset "$1" -DNEOLOOM_PYTHON_PREFIX="$(bash cluster/bootstrap/bootstrap.sh --print-prefix)"; }

# ctest shows nothing of a test that passes, so what its file skipped, and why, is told here.
show_skipped() {
  awk '/^SKIPPED \[/ { count = substr($2, 2) + 0; sub(/^SKIPPED \[[0-9]+\] [^ ]+ /, ""); tests[$0] += count }
       END { for (reason in tests) printf "skipped %3d: %s\n", tests[reason], reason }' build/Testing/Temporary/LastTest.log 2>/dev/null | sort
}

run_tests() {
  local code=0
  ctest --test-dir build --output-on-failure --parallel "$((jobs < 2 ? jobs : 2))" --no-tests=error "$@" || code=$?
  show_skipped
  return $code
}

# Sources that differ from the last tag; all of them where there is no tag.
changed_sources() {
  local tag
  tag=$(git describe --tags --abbrev=0 2>/dev/null) || tag=$(git hash-object -t tree /dev/null)
  git diff --name-only --diff-filter=d "$tag" -- 'runtime/*.cpp' 'model/*.cpp' 'data/*.cpp' 'launch/*.cpp' 'tests/unit/*.cpp'
}

run_tidy() { # FILE...; without one: all
  phase "clang-tidy" bash tests/structure/tidy.sh build "$@"
  phase "clang" python3 tests/structure/clang.py build "$@"
}

run_tsan() {
  export TSAN_OPTIONS=halt_on_error=1
  ctest --test-dir build-tsan --output-on-failure --no-tests=error -R '^unit\.(core|data)$' "$@"
}

run_asan() {
  # What third-party libraries keep until the process ends is listed in lsan.supp; every other leak is ours.
  export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:protect_shadow_gap=0
  export LSAN_OPTIONS=suppressions=$PWD/tests/structure/lsan.supp:print_suppressions=0
  export UBSAN_OPTIONS=print_stacktrace=1
  ctest --test-dir build-asan --output-on-failure --parallel "$((jobs < 2 ? jobs : 2))" --no-tests=error -L unit "$@"
}

case ${1:-} in
  --asan)
    shift
    phase "set-up" bash cluster/bootstrap/bootstrap.sh --tests
    phase "configure (asan)" configure asan
    phase "build (asan)" cmake --build build-asan --parallel "$jobs" --target unit_tests
    phase "unit tests (asan)" run_asan "$@"
    ;;
  --tsan)
    shift
    phase "set-up" bash cluster/bootstrap/bootstrap.sh --tests
    phase "configure (tsan)" configure tsan
    phase "build (tsan)" cmake --build build-tsan --parallel "$jobs" --target unit_core unit_data
    phase "unit tests (tsan)" run_tsan "$@"
    ;;
  --tidy | --tidy-changed)
    phase "set-up" bash cluster/bootstrap/bootstrap.sh --tests
    phase "configure" configure release
    files=()
    if [ "$1" = --tidy-changed ]; then mapfile -t files < <(changed_sources); fi
    run_tidy "${files[@]}"
    ;;
  --nightly)
    trap - EXIT
    for part in "" --asan --tsan --tidy; do bash "${BASH_SOURCE[0]}" $part; done
    ;;
  -h | --help)
    trap - EXIT
    sed -n '3,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    ;;
  *)
    phase "set-up" bash cluster/bootstrap/bootstrap.sh --tests
    phase "configure" configure release
    phase "build" cmake --build build --parallel "$jobs"
    phase "tests" run_tests "$@"
    ;;
esac

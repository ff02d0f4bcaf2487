#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set-up, build, and every test (those of GPUs are skipped where there is none):
#
#   bash tests/run.sh                 release build and all tests
#   bash tests/run.sh --ci [MINUTES]  the same, then --tidy-changed and --asan; what has not ended MINUTES after the start
#                                     is given up, and the last lines say so
#   bash tests/run.sh --asan          unit tests under AddressSanitizer and UBSan (a build of its own)
#   bash tests/run.sh --tsan          unit tests of the rooms without LibTorch and MPI, under ThreadSanitizer
#   bash tests/run.sh --tidy          clang-tidy over the project's own sources, and clang's front end as a second compiler
#   bash tests/run.sh --tidy-changed  the same for the sources that changed since the last release
#   bash tests/run.sh --oldest        build and all tests with the oldest supported LibTorch (cluster/bootstrap/oldest)
#   bash tests/run.sh --newest        build and all tests with the newest releases of LibTorch and the oracles
#   bash tests/run.sh --nightly       the release build with all tests and the memory of models of 125M and 1.3B, --asan,
#                                     --tsan, --tidy, --oldest and --newest
#   bash tests/run.sh -R parity -V    other arguments go to ctest
#
# NEOLOOM_JOBS: parallel compilers and tests (default: the number of cores; tests at most 2, they start ranks of their own).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

jobs=${NEOLOOM_JOBS:-$(nproc)}
export NEOLOOM_JOBS=$jobs # nproc counts OMP_NUM_THREADS, which is 1 below
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
       END { for (reason in tests) printf "skipped %3d: %s\n", tests[reason], reason }' "$1"/Testing/Temporary/LastTest.log 2>/dev/null | sort
}

run_ctest() { # BUILD_FOLDER ARGUMENT...
  local build=$1 code=0
  shift
  ctest --test-dir "$build" --output-on-failure --parallel "$((jobs < 2 ? jobs : 2))" --no-tests=error "$@" || code=$?
  show_skipped "$build"
  return $code
}

# Sources that differ from the last release: the commit that last set the version. A clone without history knows none.
changed_sources() {
  local release
  release=$(git log -1 --format=%H -G'^project\(neoloom VERSION' -- CMakeLists.txt)
  git diff --name-only --diff-filter=d "$release" -- 'runtime/*.cpp' 'model/*.cpp' 'data/*.cpp' 'launch/*.cpp' 'tests/unit/*.cpp'
}

run_tidy() { # FILE...; without one: all
  phase "clang-tidy" bash tests/structure/tidy.sh build-checks "$@"
  phase "clang" python3 tests/structure/clang.py build-checks "$@"
}

run_tidy_changed() {
  local files=()
  if [ "$(git rev-parse --is-shallow-repository 2>/dev/null)" != false ]; then
    printf '\n== clang-tidy, clang\nskipped: this copy has no history, so the changes since the last release are unknown (--tidy checks all)\n'
    return
  fi
  mapfile -t files < <(changed_sources)
  if [ ${#files[@]} -gt 0 ]; then run_tidy "${files[@]}"; fi
}

run_tsan() ( # a subshell: its variables are for these tests alone
  export TSAN_OPTIONS=halt_on_error=1
  ctest --test-dir build-tsan --output-on-failure --no-tests=error -R '^unit\.(core|data)$' "$@"
)

run_asan() (
  # What third-party libraries keep until the process ends is listed in lsan.supp; every other leak is ours.
  export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:protect_shadow_gap=0
  export LSAN_OPTIONS=suppressions=$PWD/tests/structure/lsan.supp:print_suppressions=0
  export UBSAN_OPTIONS=print_stacktrace=1
  ctest --test-dir build-asan --output-on-failure --parallel "$((jobs < 2 ? jobs : 2))" --no-tests=error -L unit "$@"
)

set_up() { phase "set-up" bash cluster/bootstrap/bootstrap.sh --tests "$@"; } # [--checks]

build_release() {
  phase "configure" configure release
  phase "build" cmake --build build --parallel "$jobs"
}

asan() {
  phase "configure (asan)" configure asan
  phase "build (asan)" cmake --build build-asan --parallel "$jobs" --target unit_tests
  phase "unit tests (asan)" run_asan "$@"
}

tsan() {
  phase "configure (tsan)" configure tsan
  phase "build (tsan)" cmake --build build-tsan --parallel "$jobs" --target unit_core unit_data
  phase "unit tests (tsan)" run_tsan "$@"
}

with_versions() { # NAME REQUIREMENTS_FOLDER ARGUMENT...: build and tests in build-NAME; arguments go to ctest
  local name=$1 requirements=$2 prefix
  shift 2
  phase "set-up ($name)" bash cluster/bootstrap/bootstrap.sh --tests --requirements "$requirements"
  prefix=$(bash cluster/bootstrap/bootstrap.sh --print-prefix --requirements "$requirements")
  phase "configure ($name)" cmake --preset release -B "build-$name" -DNEOLOOM_PYTHON_PREFIX="$prefix"
  phase "build ($name)" cmake --build "build-$name" --parallel "$jobs"
  phase "tests ($name)" run_ctest "build-$name" "$@"
}

oldest() { with_versions oldest cluster/bootstrap/oldest "$@"; }

newest() {
  local requirements=$PWD/build-newest/requirements
  phase "newest releases" "$(bash cluster/bootstrap/bootstrap.sh --print-prefix)/bin/python3" cluster/bootstrap/newest.py --write "$requirements"
  with_versions newest "$requirements" "$@"
}

# within MINUTES PART: one part of this script, ended when MINUTES have passed since the start of the whole; 0: no limit.
within() {
  local left=$(($1 * 60 - SECONDS)) code=0
  if [ "$1" = 0 ]; then left=infinity; elif [ "$left" -le 0 ]; then left=1; fi
  timeout "$left" bash tests/run.sh "$2" || code=$?
  if [ $code = 124 ]; then phases+=("$2: GIVEN UP after $1 minutes"); else return $code; fi
}

case ${1:-} in
  --ci)
    minutes=${2:-0}
    set_up
    build_release
    phase "tests" run_ctest build
    within "$minutes" --tidy-changed
    within "$minutes" --asan
    ;;
  --tidy-changed)
    set_up --checks
    phase "configure (checks)" configure checks
    run_tidy_changed
    ;;
  --asan)
    shift
    set_up
    asan "$@"
    ;;
  --tsan)
    shift
    set_up
    tsan "$@"
    ;;
  --oldest)
    shift
    oldest "$@"
    ;;
  --newest)
    shift
    set_up
    newest "$@"
    ;;
  --tidy)
    set_up --checks
    phase "configure (checks)" configure checks
    run_tidy
    ;;
  --nightly)
    set_up --checks
    build_release
    phase "configure (checks)" configure checks
    run_tidy
    asan
    tsan
    oldest
    newest
    phase "tests" run_ctest build -C nightly
    ;;
  -h | --help)
    trap - EXIT
    sed -n '3,19s/^# \{0,1\}//p' tests/run.sh
    ;;
  *)
    set_up
    build_release
    phase "tests" run_ctest build "$@"
    ;;
esac

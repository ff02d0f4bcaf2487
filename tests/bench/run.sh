#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Measures neoloom, beside transformers + peft where they do the same work, and writes one Markdown and one JSON report:
#
#   bash tests/bench/run.sh                              everything that needs no data of yours
#   bash tests/bench/run.sh --data FOLDER                also an epoch on real text (the folder: see --help)
#   bash tests/bench/run.sh steps --steps 5 --warmup 1   one section, a quick look
#   bash tests/bench/run.sh device                       training steps on a GPU
#   bash tests/bench/run.sh gpu_report                   what a GPU does, in at most eight minutes
#   bash tests/bench/run.sh gpu_bundle FOLDER            makes what gpu_report needs where nothing can be built
#   bash tests/bench/run.sh --help                       sections and options; also after gpu_report and gpu_bundle
#
# Sets up and builds what it needs first, except in an unpacked bundle, which has it. Measure on an idle machine; only
# ratios of one report mean anything.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
main=bench
case ${1:-} in
  gpu_report | gpu_bundle)
    main=$1
    shift
    ;;
esac
if [ -f "$root/parts/core.json" ]; then exec python3 "$root/tests/bench/gpu_report.py" "$@"; fi
for argument in "$@"; do
  case $argument in
    -h | --help) exec python3 "$root/tests/bench/$main.py" --help ;;
  esac
done
bash "$root/cluster/bootstrap/bootstrap.sh" --tests
python="$(bash "$root/cluster/bootstrap/bootstrap.sh" --print-prefix)/bin/python3"
case " $* " in
  *" --build "*) exec "$python" "$root/tests/bench/$main.py" "$@" ;;
esac
(
  cd "$root"
  cmake --preset release -DNL_BUILD_BENCH=ON -DNEOLOOM_PYTHON_PREFIX="${python%/bin/python3}"
  cmake --build build --parallel "${NEOLOOM_JOBS:-$(nproc)}" --target bench_programs
) >&2
exec "$python" "$root/tests/bench/$main.py" "$@"

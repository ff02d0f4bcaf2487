#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Measures neoloom, beside transformers + peft where they do the same work, and writes one Markdown and one JSON report:
#
#   bash tests/bench/run.sh                              everything that needs no data of yours
#   bash tests/bench/run.sh --data FOLDER                also an epoch on real text (the folder: see --help)
#   bash tests/bench/run.sh steps --steps 5 --warmup 1   one section, a quick look
#   bash tests/bench/run.sh device                       training steps on a GPU
#   bash tests/bench/run.sh --help                       sections and options
#
# Sets up and builds what it needs first. Measure on an idle machine; only ratios of one report mean anything.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
for argument in "$@"; do
  case $argument in
    -h | --help) exec python3 "$root/tests/bench/bench.py" --help ;;
  esac
done
bash "$root/cluster/bootstrap/bootstrap.sh" --tests
python="$(bash "$root/cluster/bootstrap/bootstrap.sh" --print-prefix)/bin/python3"
(
  cd "$root"
  cmake --preset release -DNL_BUILD_BENCH=ON -DNEOLOOM_PYTHON_PREFIX="${python%/bin/python3}"
  cmake --build build --parallel "${NEOLOOM_JOBS:-$(nproc)}" --target bench_programs
) >&2
exec "$python" "$root/tests/bench/bench.py" "$@"

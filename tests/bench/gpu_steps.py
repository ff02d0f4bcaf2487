# SPDX-License-Identifier: Apache-2.0
"""Rows of `device`, the most valuable first, as JSON lines, each as soon as it is measured:

    python3 tests/bench/gpu_steps.py rows --build BUILD --work FOLDER --seconds 120
    python3 tests/bench/gpu_steps.py profile --build BUILD --work FOLDER --seconds 45    the 1.3B step by kernel
    python3 tests/bench/gpu_steps.py rehearsal --build BUILD --work FOLDER               a tiny row on a CPU

What does not fit into the time is named in the last line.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import device
import limit
from budget import Budget
from context import Context
from sides import SideFailed

HF_MODULES = ("transformers", "peft")
HF_VARIANT = "best"
ROWS = [
    device.Row("1.3B", "causal_lm", 8, 1024),
    device.Row("125M", "causal_lm", 16, 1024),
    device.Row("125M", "causal_lm", 8, 128),
    device.Row("2.7B", "causal_lm", 4, 1024),
    device.Row("125M", "single_label", 32, 128),
]
TINY = device.Row("tiny", "causal_lm", 2, 64, device="cpu", dtype="float32", block_seconds=0.1)
GEMM_SHARE = 0.5  # of the profile's seconds, for the rates of its GEMMs


def say(**line):
    print(json.dumps(line), flush=True)


def missing_modules():
    return [name for name in HF_MODULES if importlib.util.find_spec(name) is None]


def measured(context, row, side, found):
    """Yields one side's line; of HF's with the comparison of the losses."""
    if side == "neoloom":
        found[side] = device.neoloom_result(context, row, side, context.build, {})
    else:
        found |= device.hf_sides(context, row, [HF_VARIANT])
        device.compare_losses(row, found["neoloom"], found)
    return found[side]


def take_rows(context, rows, seconds):
    """Prints a line for each row and side. Returns the exit code: 1 if one failed."""
    budget, left_out, failed = Budget(seconds), [], False
    sides = ["neoloom"]
    if missing := missing_modules():
        say(skipped=f"HF {HF_VARIANT}", missing=missing)
    else:
        sides.append(f"HF {HF_VARIANT}")
    for row in rows:
        found = {}
        for side in sides:
            if not budget.fits():
                left_out.append(f"{row.name}: {side}")
                continue
            if side != "neoloom" and "neoloom" not in found:
                continue  # it failed, or did not fit
            try:
                say(case=row.name, side=side, **measured(context, row, side, found))
            except SideFailed as failure:
                failed = True
                say(case=row.name, side=side, error=str(failure))
    say(left_out=left_out)
    return int(failed)


def gemm_lines(build, row, seconds):
    """Returns what gemm_probe measures of the GEMMs of a row's step; nothing without it."""
    probe = build / "gemm_probe"
    if not probe.is_file():
        return []
    only = f"{row.size} {row.tokens} rows, gemm"
    done = subprocess.run([str(probe), "--seconds", str(seconds), "--only", only], stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def profile(context, row, seconds):
    lines = gemm_lines(context.build, row, GEMM_SHARE * seconds)
    try:
        found = device.kernels_of(context, row)
    except SideFailed as failure:
        say(case=row.name, error=str(failure))
        return 1
    say(case=row.name, **found, limit=limit.of(row, lines))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rows", "profile", "rehearsal"])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--device_warmup", type=int, default=20)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    context = Context(build=arguments.build, work=arguments.work, data=None, steps=0, warmup=0, threads=0, limit=0, sets=[],
                      only=[], store_rows=0, before=None, hf=[], device_warmup=arguments.device_warmup, newest=None)
    if arguments.what == "rehearsal":
        return take_rows(context, [TINY], arguments.seconds)
    if arguments.what == "profile":
        return profile(context, ROWS[0], arguments.seconds)
    say(machine=device.ceilings())
    return take_rows(context, ROWS, arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())

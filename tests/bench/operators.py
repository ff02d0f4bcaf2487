# SPDX-License-Identifier: Apache-2.0
"""Where the CPU time of a step goes, by perf's samples; with --before, those of another build of step_bench beside."""

import json
import re
import shutil
import subprocess

from context import NotMeasured
from report import Section, spread
from sides import SideFailed, environment, make_request

ROWS = {"classification 8 x 128 bf16": ("single_label", 8, 128), "causal LM 2 x 1024 bf16": ("causal_lm", 2, 1024)}
# The first that matches "library symbol" names the row.
GROUPS = [
    ("block kernel: products, attention's scores", r"^\[JIT\]"),
    ("GELU", r"gelu"),
    ("softmax, cross entropy", r"softmax|cross_entropy"),
    ("LayerNorm", r"layer_norm|LayerNorm|RowwiseMoments"),
    ("bias, residual", r"sum_rows"),
    ("copies: other types, other orders", r"copy_rows|interleave_rows|transpose|copy_kernel|memmove|memset|Float16ToFloat"),
    ("MKL's products", r"mkl_"),
    ("waiting for the other threads", r"^libgomp"),
    ("kernel", r"^\[kernel"),
    ("LibTorch, the rest", r"^libtorch|^libc10|^libdnnl"),
    ("the rest", r""),
]


def samples(context, binary, request):
    """Milliseconds of CPU time a step by group, of all threads together."""
    steps = context.steps + context.warmup
    record = context.work / "perf.data"
    done = subprocess.run(["perf", "record", "-q", "-F", "997", "-o", record, binary, request], text=True,
                          input="step 1\n" * steps + "end\n", capture_output=True, env=environment(context.threads))
    if done.returncode != 0:
        raise SideFailed(f"perf record {binary} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    times = [json.loads(line)["cpu_seconds"] for line in done.stdout.splitlines() if "cpu_seconds" in line]
    listing = subprocess.run(["perf", "report", "-i", record, "--stdio", "-g", "none", "--percent-limit", "0", "-F",
                              "overhead,dso,symbol", "-t", "|"], text=True, capture_output=True, check=True).stdout
    shares = dict.fromkeys((name for name, _ in GROUPS), 0.0)
    for line in listing.splitlines():
        if match := re.match(r"\s*([\d.]+)%\s*\|([^|]*)\|(.*)", line):
            place = f"{match[2].strip()} {match[3].strip()}"
            shares[next(name for name, pattern in GROUPS if re.search(pattern, place))] += float(match[1]) / 100
    step = spread(times[context.warmup:])["median"] * 1000
    return {name: share * step for name, share in shares.items()} | {"a step": step}


def run(context):
    if shutil.which("perf") is None:
        raise NotMeasured("not measured: there is no perf (Debian: apt-get install linux-perf)")
    section = Section("Operators")
    section.add("CPU milliseconds of a step, of all threads together, GPT-Neo 125M shape, LoRA r=8 on q_proj and v_proj, by "
                "perf's samples of the whole process.")
    builds = {"now": context.build} | ({"before": context.before} if context.before else {})
    for name, (head, rows, length) in ROWS.items():
        context.say(f"operators: {name}")
        request = make_request(context.work, name, model=str(context.model("125M", "bfloat16")), head=head, rows=rows,
                               frozen="bfloat16", compute="bfloat16", length=length, threads=context.threads)
        found = {when: samples(context, build / "step_bench", request) for when, build in builds.items()}
        section.data[name] = found
        section.add_table([name, *found], [[group, *(f"{side[group]:.0f}" for side in found.values())]
                                           for group in found["now"]])
    return section

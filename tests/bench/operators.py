# SPDX-License-Identifier: Apache-2.0
"""Shows where the CPU time of a step goes, by perf's samples; with --before also for another build of step_bench."""

import os
import re
import shutil
import subprocess

from context import NotMeasured
from report import Section, spread
from sides import Side, make_request

ROWS = {"classification 8 x 128 fp32": ("single_label", 8, 128, "float32"),
        "classification 8 x 128 bf16": ("single_label", 8, 128, "bfloat16"),
        "causal LM 2 x 1024 bf16": ("causal_lm", 2, 1024, "bfloat16")}
# The first pattern that matches "library symbol" names the row.
GROUPS = [
    ("microkernel: GEMMs, attention's scores", r"^\[JIT\]|avx2::.*multiply"),
    ("GELU", r"gelu|scale_rows"),
    ("softmax, cross entropy", r"softmax|cross_entropy"),
    ("LayerNorm", r"layer_norm|LayerNorm|RowwiseMoments"),
    ("bias, residual", r"sum_rows"),
    ("copies: other types, other orders",
     r"copy_rows|copy_elements|interleave_rows|transpose|copy_kernel|memmove|memset|Float16ToFloat"),
    ("MKL's GEMMs", r"mkl_"),
    ("waiting for the other threads", r"^libgomp"),
    ("kernel", r"^\[kernel"),
    ("LibTorch, the rest", r"^libtorch|^libc10|^libdnnl"),
    ("the rest", r""),
]


class Recorder:
    """Runs perf around a side that takes steps. It takes samples only where it is told to."""

    def __init__(self, folder):
        self.record, names = folder / "perf.data", [folder / "perf-control", folder / "perf-done"]
        for name in names:
            name.unlink(missing_ok=True)
            os.mkfifo(name)
        self.control, self.done = (os.open(name, os.O_RDWR) for name in names)
        self.command = ["perf", "record", "-q", "-F", "997", "-o", self.record, "-D", "-1",
                        f"--control=fifo:{names[0]},{names[1]}"]

    def say(self, word):
        os.write(self.control, word.encode() + b"\n")
        os.read(self.done, 16)

    def close(self):
        os.close(self.control)
        os.close(self.done)

    def shares(self):
        """Returns the share of the samples in each group."""
        listing = subprocess.run(["perf", "report", "-i", self.record, "--stdio", "-g", "none", "--percent-limit", "0", "-F",
                                  "overhead,dso,symbol", "-t", "|"], text=True, capture_output=True, check=True).stdout
        found = dict.fromkeys((name for name, _ in GROUPS), 0.0)
        for line in listing.splitlines():
            if match := re.match(r"\s*([\d.]+)%\s*\|([^|]*)\|(.*)", line):
                place = f"{match[2].strip()} {match[3].strip()}"
                found[next(name for name, pattern in GROUPS if re.search(pattern, place))] += float(match[1]) / 100
        return found


def samples(context, binary, request, warmup, steps):
    """Returns milliseconds of CPU time a step by group, of all threads together."""
    recorder = Recorder(context.work)
    side = Side([*map(str, recorder.command), str(binary), str(request)], context.threads, request.parent / "stderr.txt")
    side.ask(f"step {warmup}")
    recorder.say("enable")
    times = [side.ask("step 1")["cpu_seconds"] for _ in range(steps)]
    recorder.say("disable")
    side.end()
    recorder.close()
    step = spread(times)["median"] * 1000
    return {name: share * step for name, share in recorder.shares().items()} | {"a step": step}


def run(context):
    if shutil.which("perf") is None:
        raise NotMeasured("not measured: there is no perf (Debian: apt-get install linux-perf)")
    section = Section("Operators")
    section.add("CPU milliseconds of a step, of all threads together, GPT-Neo 125M shape, LoRA r=8 on q_proj and v_proj, by "
                "perf's samples of the measured steps.")
    builds = {"now": context.build} | ({"before": context.before} if context.before else {})
    for name, (head, rows, length, dtype) in ROWS.items():
        context.say(f"operators: {name}")
        request = make_request(context.work, name, model=str(context.model("125M", dtype)), head=head, rows=rows,
                               frozen=dtype, compute=dtype, length=length, threads=context.threads)
        found = {when: samples(context, build / "step_bench", request, context.warmup, context.steps)
                 for when, build in builds.items()}
        section.data[name] = found
        section.add_table([name, *found], [[group, *(f"{side[group]:.0f}" for side in found.values())]
                                           for group in found["now"]])
    return section

# SPDX-License-Identifier: Apache-2.0
"""The sections of gpu_report in the order of their worth: what each needs, its budget, its command, and its tables."""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from budget import GRACE_SECONDS
from gpu_tree import Tree
from kernel_times import GROUPS
from report import figure

TOTAL_SECONDS = 480  # for all of it
START_SECONDS = 15  # to check the bundle
MARGIN_SECONDS = 4  # between what a program is told and its budget: it ends by itself
TEXT_LINES = 60  # of a program's output that the report shows
ERROR_CHARACTERS = 3000


@dataclass(frozen=True)
class Output:
    text: str
    errors: str = ""

    @property
    def lines(self):
        """The JSON lines; the last one may be cut where the program was ended."""
        found = []
        for line in self.text.splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return [line for line in found if isinstance(line, dict)]


@dataclass(frozen=True)
class GpuSection:
    name: str
    title: str
    seconds: int  # at least; it also gets what the others leave
    needs: tuple  # "program NAME", "module NAME", "compute-sanitizer"
    command: Callable  # (tree, work, seconds) -> words
    show: Callable  # (section of the report, Output)
    rehearsal: Callable | None = None  # what a CPU can run of it, and how to show that
    show_rehearsal: Callable | None = None
    variables: Callable = lambda tree: {}


def at_least_seconds(section):
    """Returns what a section may take, with the ending of its processes."""
    return section.seconds + 2 * GRACE_SECONDS


def missing(tree, section):
    """Returns which of a section's needs this tree and machine lack."""
    lacking = []
    for need in section.needs:
        kind, _, name = need.partition(" ")
        found = tree.sanitizer() if kind == "compute-sanitizer" else getattr(tree, f"has_{kind}")(name)
        if not found:
            lacking.append(name or kind)
    return lacking


# ---- what sections run

def script(tree, name, *words):
    return [sys.executable, tree.root / "tests" / "bench" / name, *words]


def steps(what):
    return lambda tree, work, seconds: script(tree, "gpu_steps.py", what, "--build", tree.build, "--work", work, "--seconds",
                                              seconds - MARGIN_SECONDS)


def doctor(device):
    return lambda tree, work, seconds: [tree.build / "neoloom", "doctor", "--device", device]


def tests(tree, work, seconds):
    return script(tree, "gpu_tests.py")


def tests_once(tree, work, seconds):
    return [sys.executable, "-m", "pytest", "-v", "-rs", "--no-header", "-p", "no:cacheprovider",
            tree.root / "tests" / "e2e" / "test_gpu.py"]


def probe(name):
    return lambda tree, work, seconds: [tree.build / name, "--seconds", seconds - MARGIN_SECONDS]


def listed(name):
    return lambda tree, work, seconds: [tree.build / name, "--list"]


def sanitized(tool):
    return lambda tree, work, seconds: [tree.sanitizer(), "--tool", tool, "--error-exitcode", 9, "--target-processes", "all",
                                        *doctor("cuda")(tree, work, seconds)]


def sanitizer_version(tree, work, seconds):
    return [tree.sanitizer(), "--version"]


# ---- what the report shows of them

def add_code(section, text):
    section.add("```\n" + text.strip() + "\n```")


def show_text(section, output):
    add_code(section, "\n".join(output.text.splitlines()[-TEXT_LINES:]))


def collected(text):
    """Returns the number of tests that all processes together were to run."""
    counts = re.findall(r"collected (\d+) items?(?: / \d+ deselected / (\d+) selected)?", text)
    return sum(int(selected or found) for found, selected in counts)


def show_tests(section, output):
    """Counts also where the tests were ended, by the lines of those that had ended."""
    ended = re.findall(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b", output.text, re.MULTILINE)
    counts = Counter(state.lower() for _, state in ended)
    section.data |= dict(counts, collected=collected(output.text),
                         failed_tests=[name for name, state in ended if state in ("FAILED", "ERROR")])
    section.add(", ".join(f"{count} {state}" for state, count in counts.items())
                + f" of {section.data['collected']} tests.")
    reasons = re.findall(r"^(?:SKIPPED \[\d+\]|FAILED|ERROR) .*", output.text, re.MULTILINE)
    if reasons:
        add_code(section, "\n".join(dict.fromkeys(reasons)))


def milliseconds(line):
    return f"{1e3 * line['seconds']['median']:.2f}"


def step_cells(line, other, machine):
    """`other`: the HF side of the same row, if there is one."""
    if "error" in line:
        return [line["case"], line["side"], "FAILED", "", "", "", "", ""]
    share = f"{100 * line['tflops'] / machine['gemm_tflops']:.0f} %" if machine else ""
    peak = f"{line['device_peak_bytes'] / 2**30:.2f}" if "device_peak_bytes" in line else ""
    ratio = f"{line['tokens_per_s'] / other['tokens_per_s']:.2f}" if other and line["side"] == "neoloom" else ""
    return [line["case"], line["side"], f"{line['tokens_per_s']:,.0f}", milliseconds(line), ratio, figure(line["tflops"]),
            share, peak]


def show_steps(section, output):
    lines = section.data["lines"] = output.lines
    machine = next((line["machine"] for line in lines if "machine" in line), None)
    if machine:
        section.add(f"{machine['device']}, {machine['memory_gib']:.0f} GiB, CUDA {machine['cuda']}, cuDNN {machine['cudnn']}, "
                    f"NCCL {machine['nccl']}. A bf16 GEMM of 8192 x 8192 x 8192 reaches {machine['gemm_tflops']:.0f} "
                    f"TFLOP/s here, a copy {machine['copy_tb_per_s']:.2f} TB/s.")
    sides = [line for line in lines if "side" in line]
    theirs = {line["case"]: line for line in sides if line["side"] != "neoloom" and "error" not in line}
    section.add_table(["work", "side", "tokens/s", "ms a step", "over HF", "TFLOP/s", "of that GEMM", "peak GiB"],
                      [step_cells(line, theirs.get(line["case"]), machine) for line in sides])
    if versions := next((line["extra"]["versions"] for line in theirs.values()), None):
        section.add("HF: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    for line in lines:
        if "error" in line:
            add_code(section, f"{line['case']}, {line['side']}: {line['error']}")
        if "skipped" in line:
            section.add(f"Skipped: {line['skipped']}, as {', '.join(line['missing'])} is missing here.")
    show_left_out(section, lines)


def show_left_out(section, lines):
    left_out = [name for line in lines for name in line.get("left_out", [])]
    if left_out:
        section.add(f"Not measured, there was no time left ({len(left_out)}): {'; '.join(left_out[:20])}"
                    + ("; ..." if len(left_out) > 20 else "."))


def show_profile(section, output):
    lines = section.data["lines"] = output.lines
    for line in lines:
        if "error" in line:
            add_code(section, f"{line['case']}: {line['error']}")
        else:
            show_step(section, line)


def show_step(section, line):
    step, limit = line["step_seconds"], line["limit"]
    if limit:
        section.add(f"{line['case']}: {1e3 * step:.2f} ms a step. Its GEMMs alone, each at the best rate measured here, "
                    f"take {1e3 * limit['seconds']:.2f} ms ({limit['mean_tflops']:.0f} TFLOP/s): a step reaches "
                    f"{100 * limit['seconds'] / step:.0f} % of the limit.")
    else:
        section.add(f"{line['case']}: {1e3 * step:.2f} ms a step. Share of the limit: unknown, as gemm_probe measured no "
                    f"rates.")
    rows = [[group, f"{1e3 * line['groups'][group]['seconds']:.2f}", f"{line['groups'][group]['runs']:.0f}",
             f"{100 * line['groups'][group]['seconds'] / step:.1f} %"] for group, _ in GROUPS]
    idle = line["idle_seconds"]
    rows.append(["no kernel runs", f"{1e3 * idle:.2f}", "", f"{100 * idle / step:.1f} %"])
    section.add_table(["kernels", "ms", "runs", "of the step"], rows)
    section.add_table(["longest kernels", "ms"], [[f"`{name[:100]}`", f"{1e3 * seconds:.2f}"]
                                                  for name, seconds in line["longest"][:12]])


def candidate(line):
    return f"{line['candidate']}: {line['milliseconds']:.3f}" if line else ""


def case_cells(name, lines):
    """A case's first candidate is what neoloom runs today."""
    measured = [line for line in lines if "milliseconds" in line]
    first = lines[0] if "milliseconds" in lines[0] else None
    best = min(measured, key=lambda line: line["milliseconds"], default=None)
    same_bits = min((line for line in measured if line.get("equal_bits")), key=lambda line: line["milliseconds"], default=None)
    gain = f"{first['milliseconds'] / best['milliseconds']:.2f}" if first and best else ""
    rate = figure(best["tflops"]) if best and "tflops" in best else ""
    error = f"{max(line.get('relative_error', 0.0) for line in measured):.1e}" if measured else ""
    return [name, candidate(first), candidate(best), gain, rate, candidate(same_bits), error, len(lines) - len(measured)]


def show_candidates(section, output):
    lines = section.data["lines"] = output.lines
    cases = {}
    for line in lines:
        if "case" in line:
            cases.setdefault(line["case"], []).append(line)
    for line in lines:
        if "machine" in line:
            section.add(", ".join(f"{name} {value}" for name, value in line["machine"].items()) + ".")
    section.add("Milliseconds. First: what neoloom runs today. Gain: its time over that of the fastest.")
    section.add_table(["case", "first", "fastest", "gain", "its TFLOP/s", "fastest with equal bits in two runs",
                       "largest relative error", "failed"], [case_cells(name, found) for name, found in cases.items()])
    errors = Counter((line["candidate"], line["error"]) for line in lines if "error" in line and "candidate" in line)
    if errors:
        add_code(section, "\n".join(f"{name}, {count} cases: {text}" for (name, text), count in errors.most_common(12)))
    show_left_out(section, lines)


def show_list(section, output):
    """A rehearsal lists the cases of a probe."""
    cases = {line["case"] for line in output.lines if "case" in line}
    section.data["cases"] = len(cases)
    section.add(f"{len(cases)} cases, {len(output.lines)} lines.")


def sections():
    hf = tuple(f"module {name}" for name in ("transformers", "peft", "tokenizers", "safetensors", "h5py", "numpy", "pytest"))
    neoloom, bench = ("program neoloom", "program libneoloom_cuda.so"), ("program step_bench", "module safetensors")
    checked = neoloom + ("compute-sanitizer",)
    return [
        GpuSection("doctor", "Doctor", 25, neoloom, doctor("cuda"), show_text, doctor("cpu")),
        GpuSection("tests", "GPU tests", 95, neoloom + hf, tests, show_tests, tests_once),
        GpuSection("steps", "Training steps", 120, bench, steps("rows"), show_steps, steps("rehearsal")),
        GpuSection("profile", "The 1.3B step by kernel", 45, bench + ("program libkernel_times.so",), steps("profile"),
                   show_profile),
        GpuSection("attention", "Candidates for attention", 55, ("program attention_probe",), probe("attention_probe"),
                   show_candidates, listed("attention_probe"), show_list, Tree.cudnn_environment),
        GpuSection("gemms", "GEMMs and epilogues", 40, ("program gemm_probe",), probe("gemm_probe"),
                   show_candidates, listed("gemm_probe"), show_list),
        GpuSection("kernels", "Own kernels", 20, ("program kernel_probe",), probe("kernel_probe"), show_candidates,
                   listed("kernel_probe"), show_list),
        GpuSection("memcheck", "compute-sanitizer: memcheck of doctor", 20, checked, sanitized("memcheck"), show_text,
                   sanitizer_version),
        GpuSection("racecheck", "compute-sanitizer: racecheck of doctor", 20, checked, sanitized("racecheck"), show_text,
                   sanitizer_version),
    ]

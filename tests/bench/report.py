# SPDX-License-Identifier: Apache-2.0
"""Figures and their spread, the machine they come from, tables in Markdown."""

import importlib.metadata
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16", "asimd", "sve", "bf16")


def spread(values):
    """Returns median, quartiles and range of a list of figures."""
    ordered = sorted(values)
    low, _, high = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    return dict(median=statistics.median(ordered), p25=low, p75=high, min=ordered[0], max=ordered[-1], n=len(ordered))


def figure(value):
    """Formats three significant digits, and all that stand before the point."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def verdict(value, target, larger_is_better=True):
    return "met" if (value >= target if larger_is_better else value <= target) else "missed"


def target_cells(value, target, larger_is_better=True):
    """Returns the two cells "target" and "met or missed" of a row; blank without a target."""
    if target is None:
        return ["", ""]
    sign = ">=" if larger_is_better else "<="
    return [f"{sign} {figure(target)}", verdict(value, target, larger_is_better)]


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


@dataclass
class Section:
    """Holds what one part of the report says: Markdown, and the figures behind it."""

    title: str
    text: list = field(default_factory=list)
    data: dict = field(default_factory=dict)
    failed: bool = False  # a part of it failed

    def add_table(self, header, rows):
        self.text.append(table(header, rows))

    def add(self, paragraph):
        self.text.append(paragraph)

    def markdown(self):
        return f"## {self.title}\n\n" + "\n\n".join(self.text)


def cpu():
    info = Path("/proc/cpuinfo").read_text().splitlines()
    values = {}
    for line in info:
        name, _, value = line.partition(":")
        values.setdefault(name.strip(), value.strip())
    flags = (values.get("flags") or values.get("Features") or "").split()
    return dict(model=values.get("model name", platform.processor() or platform.machine()),
                cores=len(os.sched_getaffinity(0)),
                instruction_sets=[name for name in INSTRUCTION_SETS if name in flags],
                memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1))


def commit():
    """Returns the commit of this tree; an unpacked bundle says it in its manifest."""
    manifest = ROOT / "parts" / "core.json"
    if manifest.exists():
        return json.loads(manifest.read_text())["commit"]
    if shutil.which("git") is None:
        return "unknown"

    def git(*arguments):
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    name = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return name + (" with changes" if git("status", "--porcelain") else "")


def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def machine():
    names = ("torch", "transformers", "peft", "tokenizers", "accelerate")
    return dict(cpu=cpu(), load_average=os.getloadavg()[0], system=platform.platform(terse=True),
                versions={name: version(name) for name in names}, commit=commit())


def machine_text(found):
    processor, versions = found["cpu"], found["versions"]
    return (f"{processor['model']}, {processor['cores']} cores, {processor['memory_gib']} GiB; "
            f"{', '.join(processor['instruction_sets'])}. {found['system']}; load at the start "
            f"{found['load_average']:.1f}. neoloom {found['commit']}; "
            + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")

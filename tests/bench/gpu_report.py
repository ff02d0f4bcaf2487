# SPDX-License-Identifier: Apache-2.0
"""Shows in at most eight minutes what neoloom does on the GPU at hand. Started by run.sh.

  bash tests/bench/run.sh gpu_report                 in a checkout (builds first) or an unpacked bundle (builds nothing)
  bash tests/bench/run.sh gpu_report steps profile   these sections alone
  bash tests/bench/run.sh gpu_report --rehearse      without a GPU: lists what would run, and runs what a CPU can. In a
                                                     checkout it makes a bundle first, and rehearses out of that

Each section has a budget, to which adds what earlier ones leave, and is ended when it is used up. The report is written
after each. What is missing is skipped by name. Exit code: 0 if all that ran passed, 1 otherwise, 2 if nothing can run here.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import budget
import report
from gpu_sections import ERROR_CHARACTERS, TOTAL_SECONDS, Output, add_code, at_least_seconds, missing, sections
from gpu_tree import PARTS, Tree, WrongBundle
from report import ROOT, Section

REHEARSED = "# Rehearsed without a GPU: nothing here is a measurement"
END_SECONDS = 2 * budget.GRACE_SECONDS + 1  # to end the last section and to write the report
GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0")


def has_gpu():
    return any(Path(name).exists() for name in GPU_FILES)


def without_folders(text):
    """Names the folders of this machine by what they are: a report is committed."""
    for folder, word in ((ROOT, "."), (Path(sys.prefix), "PREFIX"),
                         (Path(tempfile.gettempdir()), "TEMPORARY"), (Path.home(), "~")):
        if folder != folder.parent:
            text = text.replace(f"{folder}/", f"{word}/")
    return text


class Report:
    """The parts that have ended, written to FILE.md and FILE.json after each."""

    def __init__(self, output, rehearse, tree):
        self.output, self.rehearse, self.begin = output, rehearse, time.monotonic()
        self.machine, self.parts, self.rows = report.machine(), {}, []
        self.left_out = tree.left_out_parts()

    def add(self, name, section, state, seconds=None, allowed=None):
        self.parts[name] = (section, state, seconds)
        self.rows.append([name, state, "" if seconds is None else f"{seconds:.0f}", "" if allowed is None else f"{allowed:.0f}"])
        self.write()

    @property
    def failed(self):
        return any(section.failed for section, *_ in self.parts.values())

    def markdown(self):
        text = [REHEARSED if self.rehearse else "# neoloom on a GPU", report.machine_text(self.machine),
                f"`bash tests/bench/run.sh gpu_report {' '.join(sys.argv[1:])}`".replace(" `", "`")
                + f", {time.monotonic() - self.begin:.0f} s.",
                report.table(["section", "result", "seconds", "budget"], self.rows)]
        if self.left_out:
            text.append("Parts of the bundle that were not used: "
                        + ", ".join(f"{name} ({reason})" for name, reason in self.left_out.items()) + ".")
        text += [section.markdown() for section, *_ in self.parts.values() if section.text]
        return without_folders("\n\n".join(text)) + "\n"

    def write(self):
        data = dict(rehearsed=self.rehearse, machine=self.machine, arguments=sys.argv[1:], left_out=self.left_out,
                    seconds=time.monotonic() - self.begin, sections={
                        name: dict(section.data, state=state, seconds=seconds)
                        for name, (section, state, seconds) in self.parts.items()})
        self.output.with_suffix(".md").write_text(self.markdown())
        self.output.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def run_section(item, tree, work, seconds, rehearse, into):
    """Runs one section and adds it to the report, whatever happens to it."""
    shown, show = Section(item.title), (item.show_rehearsal or item.show) if rehearse else item.show
    lacking = missing(tree, item)
    if lacking:
        return into.add(item.name, shown, f"skipped: {', '.join(lacking)} missing")
    command = item.rehearsal if rehearse else item.command
    if command is None:
        return into.add(item.name, shown, "skipped: needs a GPU")
    if seconds <= 0:
        return into.add(item.name, shown, "skipped: no time left")
    say(f"section {item.name}, at most {seconds:.0f} s")
    output = work / f"{item.name}.txt"
    ended = budget.run(command(tree, work, seconds), seconds, output, tree.environment(**item.variables(tree)))
    found = Output(output.read_text(errors="replace"), output.with_suffix(".err").read_text(errors="replace"))
    try:
        show(shown, found)
    except (KeyError, IndexError, ValueError, TypeError) as error:  # of a program that was ended, or is of another version
        shown.failed = True
        shown.add(f"Its output cannot be read ({type(error).__name__}: {error}).")
        add_code(shown, found.text[-ERROR_CHARACTERS:])
    shown.failed = shown.failed or ended.overran or ended.code != 0
    state = f"FAILED: ended after {ended.seconds:.0f} s, its budget" if ended.overran else \
        "passed" if not shown.failed else f"FAILED: exit code {ended.code}"
    if shown.failed and found.errors.strip():
        add_code(shown, found.errors[-ERROR_CHARACTERS:])
    into.add(item.name, shown, state, ended.seconds, seconds)


def listing(tree, work):
    """Says what would run on a machine with a GPU."""
    shown = Section("What would run")
    rows = []
    for item in sections():
        lacking = missing(tree, item)
        needs = [f"{need} ({'missing' if need.split()[-1] in lacking else 'present'})" for need in item.needs]
        words = " ".join(str(word or "compute-sanitizer") for word in item.command(tree, work, item.seconds))
        rows.append([item.name, item.seconds, "`" + words.replace(str(work), "WORK").replace(sys.executable, "python3") + "`",
                     ", ".join(needs)])
    shown.add_table(["section", "seconds", "command", "needs"], rows)
    return shown


def check_libraries(tree):
    """Says where the programs of a bundle find their libraries."""
    shown, foreign = Section("Libraries"), tree.foreign_libraries()
    shown.failed = bool(foreign)
    shown.data["foreign"] = foreign
    shown.add("The programs load libraries of the bundle, of torch's wheel, and the system's C and C++ libraries alone."
              if not foreign else "The programs would load other libraries, or do not find them:")
    if foreign:
        shown.add_table(["program", "library", "found"], foreign)
    return shown


def run_sections(tree, chosen, work, rehearse, into, started):
    if tree.is_bundle:
        shown = check_libraries(tree)
        into.add("libraries", shown, "FAILED" if shown.failed else "passed")
    if rehearse:
        into.add("listing", listing(tree, work), "passed")
    items = [item for item in sections() if not chosen or item.name in chosen]
    for index, item in enumerate(items):
        others = sum(at_least_seconds(other) for other in items[index + 1 :] if not missing(tree, other))
        left = TOTAL_SECONDS - END_SECONDS - (time.monotonic() - started) - others
        run_section(item, tree, work, left, rehearse, into)


def rehearse_bundle(arguments):
    """Makes a bundle of this checkout, unpacks it and the parts that were given, and rehearses there. Returns its exit code."""
    import gpu_bundle

    with tempfile.TemporaryDirectory(prefix="neoloom-gpu-") as temporary:
        folder = Path(temporary)
        core = gpu_bundle.make_core(ROOT, arguments.build.resolve(), folder / "parts", quick=True)
        others = sorted(arguments.parts.glob("*.tar.xz")) if arguments.parts else []
        for path in [*(path for path in others if gpu_bundle.part_name(path) != "core"), core]:
            gpu_bundle.unpack(path, folder / "unpacked")
        command = ["bash", folder / "unpacked" / gpu_bundle.TOP / "tests" / "bench" / "run.sh", "gpu_report", "--rehearse",
                   "--output", arguments.output.resolve(), *arguments.sections]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(list(map(str, command)), env=dict(os.environ, PATH=path), cwd=folder).returncode


def parse():
    names = [item.name for item in sections()]
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh gpu_report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="the build folder (default build)")
    parser.add_argument("--parts", type=Path, metavar="FOLDER",
                        help=f"rehearse with these parts of a bundle, too ({', '.join(PARTS)})")
    parser.add_argument("--work", type=Path, help="folder for models and runs, 20 GB; kept (default: a temporary one)")
    parser.add_argument("--output", type=Path, default=Path("gpu-report"),
                        help="report without extension (default gpu-report: .md and .json)")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.sections) - set(names)):
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(names)}")
    return arguments


def main():
    arguments, started = parse(), time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes of a section end, too
    tree = Tree.at(ROOT, arguments.build)
    if arguments.rehearse and not tree.is_bundle:
        return rehearse_bundle(arguments)
    if not arguments.rehearse and not has_gpu():
        print("gpu_report: this machine has no GPU; --rehearse lists what would run", file=sys.stderr)
        return 2
    try:
        tree.check()
    except WrongBundle as reason:
        print(f"gpu_report: {reason}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="neoloom-gpu-") as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        into = Report(arguments.output.resolve(), arguments.rehearse, tree)
        run_sections(tree, arguments.sections, work, arguments.rehearse, into, started)
    print(into.markdown())
    return 1 if into.failed else 0


if __name__ == "__main__":
    sys.exit(main())

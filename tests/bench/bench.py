# SPDX-License-Identifier: Apache-2.0
"""Runs the sections of the benchmark and writes one Markdown and one JSON report. Started by run.sh.

Sections: steps (training steps beside transformers + peft), epoch (an epoch on real text beside HF Trainer), micro
(GEMMs, attention, ..., tokenizer, all-reduce, checkpoint), growth (length, batch, rank of the adapters, ranks), start
(process start to the first step), data (token store, conversion of weights), instructions (counts under valgrind),
operators (where the time of a step goes, by perf). Only when asked for by name: device (training steps on a GPU), quality
(what four real sets teach, beside HF Trainer; about an hour).
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path

import report
from context import DATA_HELP, Context, NotMeasured
from report import ROOT
from sides import SideFailed

SECTIONS = ("steps", "epoch", "micro", "growth", "start", "data", "instructions", "operators", "device", "quality")
ON_REQUEST = ("device", "quality")
HF_VARIANTS = ("eager", "best", "autocast", "compiled")


def names(text):
    """Splits an option at commas: its value is one word, so that sections may follow it."""
    return [name for name in text.split(",") if name]


def parse():
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all but device and quality")
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each row of `steps`, `growth` and `operators` (default 20)")
    parser.add_argument("--warmup", type=int, default=5, help="their steps before them (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of either side (default 2)")
    parser.add_argument("--only", type=names, default=[], metavar="PART,...",
                        help="rows of `steps`, `device` and `quality` whose names contain one of these")
    parser.add_argument("--data", type=Path, help=DATA_HELP)
    parser.add_argument("--sets", type=names, default=["spam", "banking77", "ag_news"], metavar="SET,...",
                        help="data sets of `epoch` (default spam,banking77,ag_news)")
    parser.add_argument("--limit", type=int, default=600,
                        help="training rows of each set of `epoch` (default 600, about 10 minutes on 2 cores; 0: all)")
    parser.add_argument("--store_rows", type=int, default=1_000_000, help="rows of the token store of `data`")
    parser.add_argument("--hf", type=names, default=[], metavar="VARIANT,...",
                        help=f"sides of `steps` (beside eager, always there) and `device` (default eager,best), of "
                        f"{', '.join(HF_VARIANTS)}; autocast stands beside the bf16 rows of `steps` alone")
    parser.add_argument("--newest", type=Path, metavar="PYTHON",
                        help="an interpreter with newer torch, transformers and peft: one more side of `steps`")
    parser.add_argument("--device_warmup", type=int, default=20, help="steps before the measured ones of `device`")
    parser.add_argument("--before", type=Path, help="another build folder, for `operators` and `device` to set beside this one")
    parser.add_argument("--work", type=Path, help="folder for models and runs; kept (default: a temporary one)")
    parser.add_argument("--output", type=Path, default=Path("bench-report"),
                        help="report without extension (default bench-report: .md and .json)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if unknown := sorted(set(arguments.hf) - set(HF_VARIANTS)):
        parser.error(f"--hf: no {', '.join(unknown)}; there are {', '.join(HF_VARIANTS)}")
    if arguments.data and not arguments.data.is_dir():
        parser.error(f"--data {arguments.data} is no folder; expected a {DATA_HELP}")
    return arguments


def measure(context, sections, asked):
    """Yields (name, Section, whether it failed). A section that was asked for by name must have what it needs."""
    for name in sections:
        context.say(f"section {name}")
        try:
            yield name, importlib.import_module(name).run(context), False
        except NotMeasured as reason:
            if asked:
                print(f"{name}: {reason}", file=sys.stderr)
                sys.exit(2)
            yield name, report.Section(name.capitalize(), [str(reason)]), False
        except SideFailed as failure:
            yield name, report.Section(name.capitalize(), [f"FAILED\n\n```\n{failure}\n```"]), True


def write(output, machine, sections, seconds):
    text = ["# neoloom benchmark", report.machine_text(machine),
            f"`bash tests/bench/run.sh {' '.join(sys.argv[1:])}`, {seconds:.0f} s"]
    text += [section.markdown() for section in sections.values()]
    markdown = "\n\n".join(text) + "\n"
    data = dict(machine=machine, arguments=sys.argv[1:], seconds=seconds,
                sections={name: section.data for name, section in sections.items()})
    output.with_suffix(".md").write_text(markdown)
    output.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    return markdown


def main():
    arguments = parse()
    machine, begin = report.machine(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="neoloom-bench-") as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        context = Context(ROOT / "build", work, arguments.data and arguments.data.resolve(), arguments.steps,
                          arguments.warmup, arguments.threads, arguments.limit, arguments.sets, arguments.only,
                          arguments.store_rows, arguments.before and arguments.before.resolve(), arguments.hf,
                          arguments.device_warmup, arguments.newest)
        sections, failures = {}, 0
        chosen = arguments.sections or [name for name in SECTIONS if name not in ON_REQUEST]
        for name, section, failed in measure(context, chosen, bool(arguments.sections)):
            sections[name] = section
            failures += failed or section.failed
            markdown = write(arguments.output, machine, sections, time.monotonic() - begin)  # as far as it got
    print(markdown)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

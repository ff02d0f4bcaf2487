# SPDX-License-Identifier: Apache-2.0
"""Measures the time from the start of the process to the first step of a 125M run, caches warm, beside HF Trainer."""

import runs
from report import Section, figure, spread, target_cells

REPETITIONS, ROWS, TARGET_SECONDS = 5, 64, 1.5


def run(context):
    section = Section("Start")
    task = runs.make_task(context, "spam", ROWS)
    runs.neoloom(context, task, "warm", max_steps=1)
    times = {"neoloom": [], "HF Trainer": []}
    for turn in range(REPETITIONS):
        context.say(f"start: {turn + 1} of {REPETITIONS}")
        times["neoloom"].append(runs.neoloom(context, task, "start", max_steps=1)["start_seconds"])
        times["HF Trainer"].append(runs.hf(context, task, "start", max_steps=1)["start_seconds"])
    section.data = {name: spread(values) for name, values in times.items()}
    section.add(f"Seconds from the start of the process to the first step, 125M fp32, {ROWS} rows, in turns.")
    rows = [[name, *(figure(values[key]) for key in ("median", "min", "max")),
             *target_cells(values["median"], TARGET_SECONDS if name == "neoloom" else None, False)]
            for name, values in section.data.items()]
    section.add_table(["program", "seconds", "min", "max", "target", ""], rows)
    return section

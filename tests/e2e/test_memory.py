# SPDX-License-Identifier: Apache-2.0
"""Memory is planned: recomputed blocks change no bit, a plan that does not fit is refused, and what was decided is kept."""

import re

import pytest
from common import TOTAL_STEPS, Run, make_config, merged, neoloom
from runs import assert_one_message

DEVICE, USAGE = 8, 2
CASES = [("classification", "float32"), ("classification", "bfloat16"), ("causal_lm", "float16")]


@pytest.mark.parametrize("kind, dtype", CASES, ids="-".join)
def test_recomputed_blocks_give_the_same_bits(tmp_path, data, cache, kind, dtype):
    ended = {}
    for ranks, checkpointing in ((1, False), (2, True)):
        config = merged(make_config(kind, data, cache, dtype), {"trainer_config": {"gradient_checkpointing": checkpointing}})
        run = Run(tmp_path / f"run-{checkpointing}", config)
        run.train(ranks).expect(0)
        (start,) = run.events("run_start")
        assert start["gradient_checkpointing"] is checkpointing
        ended[checkpointing] = run
    assert ended[True].state() == ended[False].state()
    assert ended[True].losses() == ended[False].losses()


def test_a_resume_keeps_what_the_first_start_decided(tmp_path, data, cache):
    config = merged(make_config("causal_lm", data, cache), {"trainer_config": {"lr_scheduler_type": "constant"}})
    decided = {"trainer_config": {"gradient_checkpointing": True}, "runtime": {"logits_chunk_rows": 32}}

    def start(folder, steps, *arguments, changes=None):
        run = Run(tmp_path / folder, merged(config, changes or {}), trainer_config={"max_steps": steps})
        return run, run.train(1, *arguments)

    _, ended = start("run", 4, changes=decided)
    ended.expect(0)
    _, ended = start("run", 6, "--extend", changes={"runtime": {"logits_chunk_rows": 64}})
    assert_one_message(ended.expect(USAGE), "runtime.logits_chunk_rows: was 32, is 64")

    run, ended = start("run", 6, "--extend")
    ended.expect(0)
    assert [event["gradient_checkpointing"] for event in run.events("run_start")] == [True, True]
    whole, ended = start("whole", 6, changes=decided)
    ended.expect(0)
    assert run.state() == whole.state()


def test_a_plan_beyond_its_budget_is_refused_with_figures(tmp_path, data, cache):
    run = Run(tmp_path / "run", make_config("classification", data, cache), runtime={"memory_budget": "2MB"})
    assert_one_message(run.train(2).expect(DEVICE), "its budget (runtime.memory_budget) is 2.0 MB",
                       "with gradient checkpointing", "frozen weights", "training state", "micro-step")
    assert not run.folder.exists(), "an output folder remembers a run that never was"


def test_automatic_batch_sizes_go_on_beyond_the_budget(tmp_path, data, cache):
    run = Run(tmp_path / "run", make_config("classification", data, cache), runtime={"memory_budget": "2MB"},
              trainer_config={"auto_find_batch_size": True})
    ended = run.train(1).expect(0)
    assert "auto_find_batch_size: true); a rank would need" in ended.err
    (start,) = run.events("run_start")
    assert start["gradient_checkpointing"] is True
    assert run.state()["step"] == TOTAL_STEPS


def test_the_details_say_what_was_planned(tmp_path, data, cache):
    run = Run(tmp_path / "run", make_config("classification", data, cache), trainer_config={"max_steps": 1})
    ended = run.train(2, "--verbose").expect(0)
    assert re.search(r"^memory: [\d.]+ [MG]B planned per rank, budget [\d.]+ [MG]B; gradient checkpointing off$", ended.err, re.M)


def plan(run, *arguments):
    return neoloom(0, "plan", "--config", run.config_file, *arguments)


def test_a_plan_names_memory_traffic_steps_and_time(tmp_path, data, cache):
    run = Run(tmp_path / "run", make_config("classification", data, cache))
    printed = plan(run, "--ranks", 3).expect(0).out
    lines = {line[:24].strip(): line[24:] for line in printed.splitlines()}
    assert lines["global batch"] == "12 samples: 6 micro-batches of 2, on 3 ranks"
    assert lines["steps"].startswith(f"{TOTAL_STEPS} (5 per epoch")
    assert int(lines["bytes per all-reduce"]) > 0
    assert "gradient checkpointing off" in lines["memory of a rank"]
    assert {"program", "frozen weights", "training state", "micro-step", "evaluation", "writing a checkpoint"} <= set(lines)
    assert re.search(r"of which scores of all rows take [\d.]+ MB$", lines["evaluation"])
    assert lines["expected time"] == "unknown (neoloom plan --measure measures it)"
    assert not run.folder.exists()


def test_a_plan_beyond_a_chosen_budget_ends_as_the_run_would(tmp_path, data, cache):
    run = Run(tmp_path / "run", make_config("classification", data, cache))
    ended = plan(run, "--set", "runtime.memory_budget=2MB").expect(DEVICE)
    assert_one_message(ended, "its budget (runtime.memory_budget) is 2.0 MB")
    assert plan(run, "--ranks", 2, "--ranks_per_node", 3).expect(USAGE)

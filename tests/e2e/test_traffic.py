# SPDX-License-Identifier: Apache-2.0
"""Only adapter gradients travel: what MPI is handed in a step, against PEFT's own count of trainable parameters."""

import json
import time
from pathlib import Path

import pytest
from common import BUILD, LABELS, Run, make_config, merged
from peft import LoraConfig, get_peft_model
from transformers import GPTNeoForCausalLM, GPTNeoForSequenceClassification
from transformers.utils import logging

logging.set_verbosity_error()  # a base without a score head is what these tests want

BYTES_PER_PARAMETER = 8  # an int64 fixed-point sum
SLACK_BYTES = 1024  # tensors start at multiples of 64 bytes; loss, flags of the sum, one word of host flags
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"]
CASES = [
    ("classification", {"r": 4, "target_modules": ["q_proj", "v_proj"]}),
    ("classification", {"r": 8, "target_modules": ALL_LINEAR}),
    ("causal_lm", {"r": 3, "target_modules": ["q_proj", "c_fc", "c_proj"]}),
]


def peft_count(config):
    """Trainable parameters as PEFT counts them on the transformers model."""
    lora = config["peft_config"]
    base = config["model_config"]["pretrained_model_name"]
    if lora["task_type"] == "SEQ_CLS":
        model = GPTNeoForSequenceClassification.from_pretrained(base, num_labels=len(LABELS))
    else:
        model = GPTNeoForCausalLM.from_pretrained(base)
    keys = ("task_type", "r", "lora_alpha", "lora_dropout", "target_modules")
    return get_peft_model(model, LoraConfig(**{key: lora[key] for key in keys})).get_nb_trainable_parameters()[0]


# Heartbeats between rank 0 and the other ranks: threads of their own send them by the clock, whatever a step does.
HEARTBEAT_CALLS = {"MPI_Isend", "MPI_Irecv"}
HEARTBEATS_PER_SECOND = 5  # until the configuration is read; then one


def bytes_per_step(prefix, ranks):
    """Returns {rank: {step: {call: bytes}}}. An interval begins where a step ends, so it holds the next step."""
    result = {}
    for rank in range(ranks):
        with open(f"{prefix}.{rank}") as file:
            intervals = json.load(file)["intervals"]
        result[rank] = {interval["mark"] + 1: {name: call["bytes"] for name, call in interval["calls"].items()
                                                if name not in HEARTBEAT_CALLS}
                        for interval in intervals if interval["mark"] is not None}
    return result


def heartbeat_calls(prefix, ranks):
    """Returns the most calls that one rank made for heartbeats in the whole run."""
    totals = [json.loads(Path(f"{prefix}.{rank}").read_text())["total"] for rank in range(ranks)]
    return max(total[name]["calls"] for total in totals for name in HEARTBEAT_CALLS)


@pytest.mark.parametrize("kind, lora", CASES, ids=["q_v", "all_linear", "odd_rank"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_a_step_exchanges_the_adapter_gradients_and_nothing_else(tmp_path, data, cache, kind, lora, ranks):
    config = merged(make_config(kind, data, cache), {"peft_config": lora})
    trainable = peft_count(config)
    quiet = {"logging_steps": 100, "eval_strategy": "no", "save_steps": 100}
    run = Run(tmp_path / "run", config, trainer_config=quiet, runtime={"state_check_steps": 0})
    exported = {"LD_PRELOAD": BUILD / "libpmpi_counter.so", "NL_PMPI_OUT": tmp_path / "mpi"}
    began = time.monotonic()
    run.train(ranks, exported=exported).expect(0)
    # Rank 0 has ranks - 1 peers. Each of them sends a few more messages at its start and its end.
    assert heartbeat_calls(tmp_path / "mpi", ranks) <= (ranks - 1) * (HEARTBEATS_PER_SECOND * (time.monotonic() - began) + 6)

    (start,) = run.events("run_start")
    total_steps, reported = start["total_steps"], start["allreduce_bytes_per_step"]
    assert start["trainable_parameters"] == trainable
    gradients = BYTES_PER_PARAMETER * trainable
    assert gradients <= reported <= gradients + SLACK_BYTES
    for steps in bytes_per_step(tmp_path / "mpi", ranks).values():
        for step in range(2, total_steps):  # the first step follows the set-up, the last one the final reports
            calls = steps[step]
            assert set(calls) <= {"MPI_Allreduce", "MPI_Iallreduce", "MPI_Ibarrier", "MPI_Barrier"}, calls
            exchanged = sum(calls.values())
            assert reported <= exchanged <= gradients + SLACK_BYTES, calls
    print(f"{ranks} ranks, {trainable} trainable parameters: {gradients} bytes of gradients, {reported} reported, "
          f"{exchanged} exchanged a step")

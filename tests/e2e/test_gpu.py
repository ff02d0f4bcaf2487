# SPDX-License-Identifier: Apache-2.0
"""Runs on a GPU: every kernel by doctor, thirty steps of transformers + peft, equal bits with and without graphs, on two
ranks, across kill and resume, no wait of the host in a step; skipped where there is no GPU."""

import copy
import json
import shutil
import signal

import pytest
import torch
from common import HAS_GPU, TOTAL_STEPS, Run, make_config, merged, neoloom
from runs import losses
from test_parity_training import (  # noqa: F401  (fixtures)
    adapter_values,
    reference_run,
    start_values,
    task,
    travelled_share,
)

pytestmark = pytest.mark.skipif(not HAS_GPU, reason="this machine has no GPU")
needs_mpirun = pytest.mark.skipif(shutil.which("mpirun") is None, reason="this machine has no mpirun")
# Ranks that share a GPU reach each other by sockets, as hosts do.
SHARED = {"NEOLOOM_SHARE_GPU": 1, "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": 1, "NCCL_MAX_CTAS": 4}
CASES = [("classification", "bfloat16"), ("causal_lm", "bfloat16"), ("classification", "float16"),
         ("causal_lm", "float16"), ("causal_lm", "float32")]


def gpu_config(kind, data, cache, dtype, **runtime):
    return merged(make_config(kind, data, cache, dtype), {"runtime": {"device": "cuda", **runtime}})


def train(folder, config, ranks=0, code=0, **variables):
    run = Run(folder, config)
    return run, run.train(ranks, **variables).expect(code)


def test_doctor_finds_every_kernel_well():
    done = neoloom(0, "doctor", "--device", "cuda")
    print(done.out)
    done.expect(0)
    for name in ("cuda:0", "flash, window 256", "CUDA graph, in two parts", "all-reduce of int64"):
        assert name in done.out
    assert "WRONG" not in done.out


def test_thirty_steps_are_those_of_transformers_peft_and_torch(task, start_values, tmp_path):  # noqa: F811
    config = merged(task.config(), {"trainer_config": {"save_strategy": "no", "logging_steps": 1},
                                    "runtime": {"device": "cuda", "cache_dir": str(task.cache)}})
    run, _ = train(tmp_path / "run", config)
    reference_losses, norms, reference = reference_run(task)
    worst = max(abs(a - b) for a, b in zip(losses(run), reference_losses, strict=True))
    share = travelled_share(adapter_values(run), reference, start_values)
    print(f"{task.name}: loss difference {worst:.1e}, parameter difference {share:.1e}")
    assert worst <= 1e-5
    assert share <= 1e-4
    assert [event["grad_norm"] for event in run.events("train")] == pytest.approx(norms, rel=1e-4)


def test_bfloat16_stays_as_close_to_fp32_as_in_transformers(task, start_values, tmp_path):  # noqa: F811
    """Compares the distance from thirty steps in fp32 with that of transformers + peft in bfloat16 on the same GPU."""
    exact_losses, _, exact = reference_run(task)
    theirs = copy.deepcopy(task)
    theirs.reference = theirs.reference.to("cuda", torch.bfloat16)
    for name, value in theirs.reference.named_parameters():
        if "lora_" in name:
            value.data = value.data.float()  # as PEFT makes adapters of 16-bit models
    theirs.batches = [{key: value.cuda() for key, value in batch.items()} for batch in task.batches]
    their_losses, _, their_values = reference_run(theirs)
    their_values = {name: value.cpu() for name, value in their_values.items()}
    config = merged(task.config(), {"model_config": {"frozen_dtype": "bfloat16"},
                                    "trainer_config": {"save_strategy": "no", "logging_steps": 1},
                                    "runtime": {"device": "cuda", "cache_dir": str(task.cache)}})
    run, _ = train(tmp_path / "run", config)

    def error(found_losses, values):
        worst = max(abs(a - b) for a, b in zip(found_losses, exact_losses, strict=True))
        return worst, travelled_share(values, exact, start_values)

    ours, rival = error(losses(run), adapter_values(run)), error(their_losses, their_values)
    print(f"{task.name}: losses differ by {ours[0]:.1e} (transformers {rival[0]:.1e}), parameters by "
          f"{ours[1]:.1e} ({rival[1]:.1e})")
    assert ours[0] <= 1.2 * rival[0] and ours[1] <= 1.2 * rival[1]  # errors of rounding vary


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, tmp_path_factory, data, cache):
    """(kind, dtype, the run, how it ended)"""
    kind, dtype = request.param
    run, ended = train(tmp_path_factory.mktemp("gpu") / "run", gpu_config(kind, data, cache, dtype))
    return kind, dtype, run, ended


def assert_same_run(run, expected):
    assert run.state() == expected.state()
    assert run.losses() == expected.losses()
    assert run.evaluations() == expected.evaluations()


def test_the_run_learns_on_the_gpu_as_on_the_cpu(case, tmp_path, data, cache):
    kind, dtype, run, _ = case
    (start,) = run.events("run_start")
    assert start["device"] != "cpu" and "NCCL" in start["communicator"]
    config = make_config(kind, data, cache)
    for settings in (config["peft_config"], gpu_config(kind, data, cache, dtype)["peft_config"]):
        assert settings["lora_dropout"] > 0  # masks differ between devices, so that only the trend is compared
    cpu, _ = train(tmp_path / "cpu", config)
    mine = [line[2] for line in run.losses() if line[2] is not None]
    theirs = [line[2] for line in cpu.losses()]
    assert min(mine[-5:]) < mine[0]
    assert mine[0] == pytest.approx(theirs[0], rel=0.05)


def test_without_graphs_the_bits_are_the_same(case, tmp_path, data, cache):
    kind, dtype, run, ended = case
    recorded = "CUDA graph of micro-steps" in ended.err
    assert recorded is (dtype != "float32"), ended.err  # fp32 attends sample by sample, in shapes of their own
    assert "no CUDA graph" not in ended.err
    eager, _ = train(tmp_path / "eager", gpu_config(kind, data, cache, dtype, cuda_graphs=False))
    assert_same_run(eager, run)


def test_recomputed_blocks_give_the_same_bits(case, tmp_path, data, cache):
    kind, dtype, run, _ = case
    config = merged(gpu_config(kind, data, cache, dtype), {"trainer_config": {"gradient_checkpointing": True}})
    recomputed, _ = train(tmp_path / "run", config)
    assert_same_run(recomputed, run)


@needs_mpirun
@pytest.mark.parametrize("bucket_bytes", [0, 4096])
def test_two_ranks_give_the_bits_of_one(case, tmp_path, data, cache, bucket_bytes):
    kind, dtype, run, _ = case
    config = gpu_config(kind, data, cache, dtype, bucket_bytes=bucket_bytes)
    two, _ = train(tmp_path / "two", config, ranks=2, **SHARED)
    (start,) = two.events("run_start")
    assert start["world_size"] == 2 and start["allreduce_buckets"] == (2 if bucket_bytes else 1)
    assert_same_run(two, run)


def test_killed_and_resumed_ends_with_the_same_bits(case, tmp_path, data, cache):
    kind, dtype, run, _ = case
    again, _ = train(tmp_path / "run", gpu_config(kind, data, cache, dtype), code=-signal.SIGKILL,
                     NEOLOOM_FAULT="kill:rank=0:step=8")
    again.train(0).expect(0)
    assert [event["step"] for event in again.events("resume")] == [6]
    assert_same_run(again, run)


@pytest.mark.parametrize("kind", ["classification", "causal_lm"])
def test_the_host_waits_for_nothing_in_a_step(tmp_path, data, cache, kind):
    config = gpu_config(kind, data, cache, "bfloat16", cuda_graphs=False)
    run, _ = train(tmp_path / "run", config, NEOLOOM_FORBID_WAITS=1)
    assert run.state()["step"] == TOTAL_STEPS


@needs_mpirun
def test_a_rank_without_a_gpu_of_its_own_is_refused(tmp_path, data, cache):
    run, ended = train(tmp_path / "run", gpu_config("classification", data, cache, "bfloat16"), ranks=torch.cuda.device_count() + 1, code=8)
    assert "ranks do not share a GPU" in ended.err
    assert not run.folder.exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_trained_models_answer_as_on_the_cpu(case, tmp_path, data, cache, dtype):
    kind, _, run, _ = case
    answers = {}
    for device in ("cuda", "cpu"):
        sets = ("--set", f"runtime.device={device}", "--set", f"model_config.frozen_dtype={dtype}", "--set",
                f"runtime.cache_dir={cache}")
        evaluated = neoloom(0, "evaluate", "--run", run.folder, "--data", data / "validation.jsonl", *sets).expect(0).out
        found = answers[device] = {"losses": [json.loads(evaluated)["eval_loss"]]}
        if kind == "causal_lm":
            found["text"] = neoloom(0, "generate", "--run", run.folder, "--prompt", "free win prize", "--max_tokens", 20,
                                    "--temperature", 0, "--json", *sets).expect(0).out
        else:
            answer = tmp_path / f"{device}.jsonl"
            neoloom(0, "predict", "--run", run.folder, "--input", data / "validation.jsonl", "--output", answer,
                    *sets).expect(0)
            found["scores"] = [json.loads(line)["score"] for line in answer.read_text().splitlines()]
    gpu, cpu = answers["cuda"], answers["cpu"]
    tolerance = dict(rel=1e-5, abs=1e-5) if dtype == "float32" else dict(rel=0.02, abs=0.02)
    assert gpu["losses"] == pytest.approx(cpu["losses"], **tolerance)
    if kind == "classification":
        assert gpu["scores"] == pytest.approx(cpu["scores"], **tolerance)
    elif dtype == "float32":
        assert gpu["text"] == cpu["text"]

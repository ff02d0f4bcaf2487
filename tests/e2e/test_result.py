# SPDX-License-Identifier: Apache-2.0
"""What a run ends with: the best model wherever checkpoints fall, all that it learnt however full the disk is, or an
error when it learnt nothing."""

import resource
import shutil
import signal
import subprocess

import common
import h5py
import numpy as np
import pytest
import tiny_model
from common import Run, end, make_config, wait_until
from runs import adapter, assert_equal, assert_one_message, train, write_jsonl
from safetensors.numpy import load_file, save_file

USAGE, DATA, NUMERIC, OUTPUT = 2, 3, 7, 74
TOTAL_STEPS, SAVED_AT = 12, 10  # evaluations are every two steps


@pytest.fixture(scope="module")
def config(data, cache):
    config = make_config("classification", data, cache)
    config["trainer_config"] |= {"max_steps": TOTAL_STEPS, "learning_rate": 2e-2, "lr_scheduler_type": "constant",
                                 "eval_steps": 2, "save_steps": SAVED_AT, "load_best_model_at_end": True}
    return config


@pytest.fixture(scope="module")
def every_evaluation_saved(tmp_path_factory, config):
    run = Run(tmp_path_factory.mktemp("saved") / "run", config, trainer_config={"save_steps": 2, "save_total_limit": 0})
    run.train(0).expect(0)
    return run


def tensors_of_step(run, step):
    with h5py.File(run.folder / f"checkpoints/step-{step:012d}.h5") as file:
        index, params = file["index"], file["params"][:]
        return {name: params[offset : offset + np.prod(shape[:rank])].reshape(shape[:rank])
                for name, offset, rank, shape in zip(index["name"].asstr()[:], index["offset"], index["rank"],
                                                     index["shape"], strict=True)}


def best_step(run, since=0):
    losses = {event["step"]: event["eval_loss"] for event in run.events("eval") if event["step"] > since}
    return min(losses, key=losses.get)


@pytest.fixture(scope="module")
def best(every_evaluation_saved):
    """The step of the best evaluation, and the adapter of that step."""
    step = best_step(every_evaluation_saved)
    assert step < SAVED_AT, f"step {step} would not test anything"
    return step, tensors_of_step(every_evaluation_saved, step)


@pytest.fixture(scope="module")
def killed(tmp_path_factory, config, best):
    """A run that was killed after a checkpoint. Its best evaluation came before that checkpoint."""
    run = Run(tmp_path_factory.mktemp("killed") / "run", config)
    run.train(0, NEOLOOM_FAULT="kill:rank=0:step=12").expect(-9)
    assert [int(path.stem[5:]) for path in run.checkpoints()] == [SAVED_AT]
    return run


@pytest.fixture
def copy_of(tmp_path, config):
    def copy(run, **changes):
        again = Run(tmp_path / "run", config, **changes)
        shutil.copytree(run.folder, again.folder)
        return again

    return copy


# The best model


def test_a_best_model_between_two_checkpoints_is_the_result(tmp_path, config, every_evaluation_saved, best):
    run = Run(tmp_path / "run", config)
    ended = run.train(2).expect(0)
    assert_equal(adapter(run.folder / "adapter"), best[1])
    assert_equal(adapter(run.folder / "adapter-best"), best[1])
    assert f"the best model: step {best[0]}," in ended.err
    assert run.evaluations() == every_evaluation_saved.evaluations()


def test_a_best_model_is_kept_where_shares_of_the_run_round_to_steps_that_do_not_meet(tmp_path, config, best):
    run = Run(tmp_path / "run", config, trainer_config={"eval_steps": 0.15, "save_steps": 0.75})
    run.train(0).expect(0)
    assert [int(path.stem[5:]) for path in run.checkpoints()] == [9, 12]  # evaluations are every two steps
    assert_equal(adapter(run.folder / "adapter"), best[1])


def test_the_best_model_survives_a_kill_and_is_there_whenever_the_command_runs_again(copy_of, killed, best):
    run = copy_of(killed)
    shutil.rmtree(run.folder / "adapter-best")
    run.train(3).expect(0)
    assert_equal(adapter(run.folder / "adapter"), best[1])
    shutil.rmtree(run.folder / "adapter")
    shutil.rmtree(run.folder / "adapter-best")
    run.train(0).expect(0)
    assert_equal(adapter(run.folder / "adapter"), best[1])


def test_a_best_model_asked_for_late_is_the_best_since_then(copy_of, tmp_path, config):
    plain = Run(tmp_path / "plain", config, trainer_config={"load_best_model_at_end": False})
    plain.train(0).expect(0)
    run = copy_of(plain, trainer_config={"max_steps": 16, "save_steps": 2, "save_total_limit": 0})
    ended = run.train(0, "--extend").expect(0)
    assert "were not kept" in ended.err and "The comparison by eval_loss starts again at the next evaluation" in ended.err
    step = best_step(run, since=TOTAL_STEPS)
    assert_equal(adapter(run.folder / "adapter"), tensors_of_step(run, step))


def test_another_metric_starts_the_comparison_anew(copy_of, killed):
    run = copy_of(killed, trainer_config={"metric_for_best_model": "eval_accuracy"})
    ended = run.train(0).expect(0)
    assert "it was chosen by eval_loss" in ended.err
    with h5py.File(run.checkpoints()[-1]) as file:
        chosen = int(file.attrs["best_step"]), float(file.attrs["best_metric"])
    later = [(event["eval_accuracy"], -event["step"]) for event in run.events("eval") if event["step"] > SAVED_AT]
    assert chosen == (-max(later)[1], max(later)[0])


def test_a_metric_that_the_evaluation_does_not_give_is_refused_at_the_start(tmp_path, config):
    run = Run(tmp_path / "run", config, trainer_config={"metric_for_best_model": "eval_f2"})
    assert_one_message(run.train(2).expect(USAGE), "metric_for_best_model", '"eval_f2"', "loss, accuracy, macro_f1")
    assert not run.folder.exists()


# What cannot be written


def test_nothing_that_is_written_beside_the_result_ends_a_run(copy_of, killed, best):
    run = copy_of(killed, trainer_config={"logging_first_step": True})
    shutil.rmtree(run.folder / "adapter-best")
    (run.folder / "adapter-best").write_text("in the way")
    for name in ("metrics.jsonl", "config.yaml"):
        (run.folder / name).unlink()
        (run.folder / name).mkdir()
    ended = run.train(2).expect(0)
    for name in ("adapter-best was not written", "config.yaml was not written", "cannot write to metrics.jsonl"):
        assert ended.err.count(name) == 1, ended.err
    assert_equal(adapter(run.folder / "adapter"), best[1])


def test_a_result_that_cannot_be_written_is_written_by_the_same_command_once_there_is_room(copy_of, killed, best):
    run = copy_of(killed)
    (run.folder / "adapter").write_text("in the way")
    ended = run.train(2).expect(OUTPUT)
    assert_one_message(ended, run.folder / "adapter", "is not a folder", f"There is a checkpoint of step {TOTAL_STEPS}")
    assert run.events("run_end")[-1]["status"] == "failed"
    (run.folder / "adapter").unlink()
    again = run.train(0).expect(0)
    assert "this run is complete" in again.err
    assert run.events("run_end")[-1]["status"] == "completed"
    assert_equal(adapter(run.folder / "adapter"), best[1])


def test_on_a_full_disk_all_steps_are_made_and_the_end_says_that_nothing_is_kept(tmp_path, config, best):
    run = Run(tmp_path / "run", config)
    limit = 6000  # bytes: room for config.yaml and for some lines, as ulimit -f gives it
    done = subprocess.run(common.command(0, "train", "--config", run.config_file), env=common.environment(), text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    ended = common.Ended(done.returncode, done.stdout, done.stderr).expect(OUTPUT)
    assert_one_message(ended, f"all {TOTAL_STEPS} steps are done", "File too large", "There is no checkpoint either")
    for name, times in [("adapter-best was not written", 1), ("cannot write to metrics.jsonl", 1),
                        ("was not saved", 2)]:
        assert ended.err.count(name) == times, ended.err
    run.train(0).expect(0)
    assert_equal(adapter(run.folder / "adapter"), best[1])


def test_a_stop_whose_state_cannot_be_saved_does_not_say_resume_me(tmp_path, config):
    run = Run(tmp_path / "run", config, trainer_config={"save_steps": 500})
    process = run.start(0, NEOLOOM_FAULT="slow:rank=0:step=2")
    metrics = run.folder / "metrics.jsonl"
    try:
        assert wait_until(lambda: metrics.exists() and '"train"' in metrics.read_text(), process)
        (run.folder / "checkpoints").write_text("in the way")
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
    finally:
        end(process)
    assert process.returncode == OUTPUT, output
    assert "stopped on request, but step" in output and "could not be saved: " in output
    assert "There is no checkpoint either" in output
    assert run.events("run_end")[-1]["status"] == "failed"


# Nothing learnt


@pytest.fixture
def quick(data):
    return {"model_config": {"pretrained_model_name": str(data / "base"), "frozen_dtype": "float32"},
            "peft_config": {"r": 4}, "trainer_config": {"max_steps": 3, "per_device_train_batch_size": 1}}


def rows(path, texts, labels=None):
    values = [{"text": text} for text in texts]
    for row, label in zip(values, labels or [], strict=False):
        row["label"] = label
    return str(write_jsonl(path, values))


@pytest.mark.parametrize("texts,labels,words", [
    (["win", "call me"], ["ham", "ham"], ["all 2 rows of", '"ham"', "one class"]),
    (["", ""], ["ham", "spam"], ["all 2 texts of", "are empty", "data.text_column"]),
    (["", ""], None, ["no token to train on", "2 rows: 2 have at most one token"]),
], ids=["one class", "empty texts", "nothing to predict"])
def test_data_that_teach_nothing_are_refused_with_counts(quick, tmp_path, cache, texts, labels, words):
    quick["data"] = {"train": rows(tmp_path / "rows.jsonl", texts, labels)}
    if labels:
        quick["model_config"]["problem_type"] = "single_label_classification"
    run, ended = train(tmp_path, cache, quick, code=DATA)
    assert_one_message(ended, "rows.jsonl", *words)
    assert not run.folder.exists()


def test_a_validation_file_without_a_target_is_refused(quick, tmp_path, cache):
    quick["data"] = {"train": rows(tmp_path / "rows.jsonl", ["win", "call me"]),
                     "validation": rows(tmp_path / "dev.jsonl", ["", ""])}
    quick["trainer_config"] |= {"eval_strategy": "steps", "eval_steps": 2}
    assert_one_message(train(tmp_path, cache, quick, code=DATA)[1], "dev.jsonl", "none of the 2 rows")


def test_a_step_without_a_target_has_no_loss(quick, tmp_path, cache):
    quick["data"] = {"train": rows(tmp_path / "rows.jsonl", ["win a prize now", "", "call me tonight"])}
    quick["trainer_config"] |= {"train_sampling_strategy": "sequential"}
    run, ended = train(tmp_path, cache, quick)
    assert "1 of 3 rows of" in ended.err and "step 2: none of its rows has a token to train on" in ended.err
    losses = [event["loss"] for event in run.events("train")]
    assert losses[1] is None and losses[0] > 1 and losses[2] > 1


def test_a_run_without_a_finite_gradient_does_not_complete(quick, data, tmp_path, cache):
    base = shutil.copytree(data / "base", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["transformer.ln_f.weight"][:] = 3e38
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    quick["model_config"]["pretrained_model_name"] = str(base)
    quick["trainer_config"] |= {"save_strategy": "steps"}
    quick["data"] = {"train": rows(tmp_path / "rows.jsonl", tiny_model.sample_texts(3))}
    run, ended = train(tmp_path, cache, quick, code=NUMERIC, ranks=2)
    assert_one_message(ended, "none of the 3 steps made an update", "Lower the learning rate")
    assert run.events("run_end")[-1]["status"] == "failed"
    assert not (run.folder / "adapter").exists()
    assert_one_message(run.train(0).expect(NUMERIC), "none of the 3 steps")

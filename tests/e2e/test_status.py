# SPDX-License-Identifier: Apache-2.0
"""neoloom status: what it says of runs that go on, ended, stopped, failed and died."""

import json
import signal
import subprocess
import sys

import common
import pytest
from runs import assert_one_message

FINISHED, RUNNING, STOPPED, FAILED, DEAD = 0, 10, 11, 12, 13


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return common.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(data, cache):
    return common.make_config("classification", data, cache)


def status(run, code):
    """Returns the JSON object and the text, which have the same exit code."""
    told = json.loads(common.neoloom(0, "status", "--run", run.folder, "--json").expect(code).out)
    assert told["exit_code"] == code
    return told, common.neoloom(0, "status", "--run", run.folder).expect(code).out


def test_finished(config, tmp_path):
    run = common.Run(tmp_path / "run", config)
    run.train(2, SLURM_JOB_ID="77", SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="7").expect(0)
    told, text = status(run, FINISHED)
    assert (told["state"], told["step"], told["total_steps"], told["world_size"]) == ("finished", 15, 15, 2)
    assert (told["slurm_job_id"], told["slurm_array_job_id"], told["slurm_array_task_id"]) == ("77", "70", "7")
    assert told["checkpoint"]["path"] == str(run.checkpoints()[-1])
    assert told["result"] == str(run.folder / "adapter")
    [*_, last] = run.events("eval")
    assert told["evaluation"]["eval_accuracy"] == last["eval_accuracy"]
    assert f"{run.folder}: finished" in text and "15 of 15 (100.0 %), epoch 3.00" in text
    assert f"step {last['step']}: eval_loss {last['eval_loss']:.4f}" in text and "next" not in text


def test_running_then_stopped_then_running_again(config, tmp_path):
    config["trainer_config"]["max_steps"] = 2000
    run = common.Run(tmp_path / "run", config)
    process = run.start(0)
    try:
        assert common.wait_until(lambda: len(run.checkpoints()) > 0 and run.events("train"), process)
        told, text = status(run, RUNNING)
        assert told["holder"].startswith(f"process {process.pid} on ") and told["total_steps"] == 2000
        assert told["seconds_left"] > 0 and " left" in text and f"process {process.pid} on " in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == common.STOPPED
        told, text = status(run, STOPPED)
        assert "holder" not in told and "seconds_left" not in told
        assert f"resumes from step {told['checkpoint']['step']}" in text and told["checkpoint"]["step"] == told["step"]
        steps = told["step"]
        process = run.start(0)
        assert common.wait_until(lambda: run.events("train")[-1]["step"] > steps, process)
        assert status(run, RUNNING)[0]["step"] > steps
    finally:
        common.end(process)


def test_dead(config, tmp_path):
    run = common.Run(tmp_path / "run", config)
    run.train(0, NEOLOOM_FAULT="kill:rank=0:step=8").expect(-signal.SIGKILL)
    told, text = status(run, DEAD)
    assert told["state"] == "dead" and told["step"] < 8
    assert f"resumes from step {told['checkpoint']['step']}" in text
    assert (run.folder / "run.lock").exists(), "looking takes no lock"
    run.train(0).expect(0)
    status(run, FINISHED)


def test_failed(config, tmp_path):
    config["trainer_config"]["learning_rate"] = 1e30
    config["runtime"]["max_skipped_steps"] = 1
    run = common.Run(tmp_path / "run", config)
    run.train(0).expect(7)
    assert status(run, FAILED)[0]["state"] == "failed"


def test_a_holder_elsewhere_lives_while_its_heartbeat_counts(config, tmp_path):
    run = common.Run(tmp_path / "run", config)
    run.train(0, NEOLOOM_FAULT="kill:rank=0:step=8").expect(-signal.SIGKILL)
    lock = run.folder / "run.lock"
    lines = lock.read_text().splitlines()
    lines[[line.startswith("boot_id") for line in lines].index(True)] = "boot_id elsewhere"
    lock.write_text("\n".join(lines) + "\n")
    beat = ("import sys, time\n"
            "for i in range(600):\n"
            "    with open(sys.argv[1], 'r+') as file:\n"
            "        text = file.read(); file.seek(0); file.write(text[:-13] + f'{i:012}\\n')\n"
            "    time.sleep(1)\n")
    process = subprocess.Popen([sys.executable, "-c", beat, str(lock)])
    try:
        assert status(run, RUNNING)[0]["state"] == "running"
    finally:
        common.end(process)
    assert status(run, DEAD)[0]["state"] == "dead"


def test_a_line_that_is_being_written_is_not_read(config, tmp_path):
    run = common.Run(tmp_path / "run", config)
    run.train(0).expect(0)
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"event":"train","step":99')
    assert status(run, FINISHED)[0]["step"] == 15


def test_a_loss_that_is_not_finite_is_told(config, tmp_path):
    run = common.Run(tmp_path / "run", config)
    run.train(0).expect(0)
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"event":"train","step":16,"epoch":null,"loss":null}\n')
    told, text = status(run, FINISHED)
    assert told["loss"] is None and "  loss         nan\n" in text


def test_a_small_loss_keeps_its_digits(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"event":"run_start","total_steps":9}\n{"event":"train","step":3,"loss":5.1e-5}\n'
                                            '{"event":"eval","step":3,"eval_loss":4.2e-6}\n')
    text = common.neoloom(0, "status", "--run", tmp_path).out
    assert "  loss         5.10e-05\n" in text and "eval_loss 4.20e-06" in text


def test_another_folder_is_refused(tmp_path):
    assert_one_message(common.neoloom(0, "status", "--run", tmp_path).expect(2), tmp_path, "is not a run folder")

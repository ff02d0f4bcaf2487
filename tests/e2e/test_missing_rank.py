# SPDX-License-Identifier: Apache-2.0
"""A rank that is stopped in any phase of a command ends the job with exit code 6 and one message that names it; a rank that
works alone for longer than the timeout is waited for. The jobs run beside each other: most of their time is waiting."""

import socket
import subprocess

import pytest
from common import Run, command, environment, make_config, mpirun_of
from mpirun_end import MPIRUN_FAILED, outcome

HOST = socket.gethostname()
TIMEOUT = 5
# The stopped rank, where it stops, and the phases in which its peers may wait.
STOPPED = [
    (1, "start", "MPI_Init"),
    (1, "start-up", "start-up"),
    (0, "building the token store", "building the token store"),
    (1, "building the token store", "building the token store"),
    (0, "converting weights", "converting weights"),
    (1, "evaluation", "evaluation"),
    (0, "saving a checkpoint", "agreeing on flags"),
    (1, "publishing the result", "publishing the result"),
    (0, "the end of the run", "the end of the run"),
    (1, "MPI_Finalize", "MPI_Finalize"),
]


@pytest.fixture(scope="module")
def ended(tmp_path_factory, data, cache):
    folder = tmp_path_factory.mktemp("runs")
    runs = {}

    def prepare(name, cache):
        config = make_config("classification", data, cache)
        # ddp_timeout is a key of HF that people paste with its default. It is about another library's timeout.
        changes = {"max_steps": 3, "eval_steps": 2, "save_steps": 1, "ddp_timeout": 1800}
        runs[name] = Run(folder / name, config, trainer_config=changes, runtime={"peer_timeout_seconds": TIMEOUT})
        return runs[name]

    def start(words, fault):
        # The timeout of MPI_Init is long elsewhere, because many programs start at once.
        variables = {"NEOLOOM_FAULT": fault, "NEOLOOM_PEER_TIMEOUT_SECONDS": TIMEOUT if fault.endswith("=start") else 60}
        return subprocess.Popen(command(2, *words), env=environment(**variables), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def train(run, fault):
        return start(["train", "--config", run.config_file], fault)

    finished = prepare("finished", cache)
    finished.train(2).expect(0)
    running = {}
    for number, (rank, phase, _) in enumerate(STOPPED):
        builds = phase in ("building the token store", "converting weights")
        run = prepare(f"stopped{number}", folder / f"cache{number}" if builds else cache)
        running[rank, phase] = train(run, f"stop:rank={rank}:phase={phase}")
    running["builds"] = train(prepare("builds", folder / "cache"),
                              f"pause:rank=0:seconds={2 * TIMEOUT}:phase=building the token store")
    predict = ["predict", "--run", finished.folder, "--input", finished.config["data"]["validation"]]
    running["predict"] = start(predict, "stop:rank=1:phase=predicting")
    result = {}
    for name, process in running.items():
        result[name] = outcome(process, lambda p=process: mpirun_of(p.pid), "MPI_Finalize" in name, seconds=120)
    return result


def only_message(ended):
    code, _, err = ended
    assert code in (6, MPIRUN_FAILED), err
    (message,) = [line for line in err.splitlines() if line.startswith("neoloom: error: ")]
    return message


@pytest.mark.parametrize("rank, phase, where", STOPPED)
def test_stopped_rank_ends_the_job_and_is_named(ended, rank, phase, where):
    message = only_message(ended[rank, phase])
    timeout = 2 * TIMEOUT if where == "MPI_Finalize" else TIMEOUT
    assert message.startswith(f"neoloom: error: rank {1 - rank} on {HOST} waited more than {timeout}.0 s in '{where}'")
    assert f"rank {rank} on {HOST} is missing" in message or f"rank {rank} is missing" in message


def test_stopped_rank_ends_predict_too(ended):
    message = only_message(ended["predict"])
    assert f"rank 0 on {HOST} waited more than {TIMEOUT}.0 s in 'predicting'" in message
    assert f"rank 1 on {HOST} is missing" in message


def test_rank_that_builds_a_cache_for_longer_than_the_timeout_is_waited_for(ended):
    code, _, err = ended["builds"]
    assert code == 0, err

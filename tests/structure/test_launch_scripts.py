# SPDX-License-Identifier: Apache-2.0
"""cluster/local/mpirun.sh and cluster/slurm/train.sbatch, with a small MPI program in neoloom's place."""

import os
import pathlib
import pty
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(os.environ["NEOLOOM_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "tests/support"))

import terminal  # noqa: E402

MPIRUN = ROOT / "cluster/local/mpirun.sh"
SBATCH = ROOT / "cluster/slurm/train.sbatch"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    binary = tmp_path_factory.mktemp("ranks") / "signal_ranks"
    subprocess.run(["mpicc", "-O1", "-o", binary, ROOT / "tests/structure/signal_ranks.c"], check=True)
    return binary


def wait_for(path, text, count=1, seconds=30):
    deadline = time.monotonic() + seconds
    while path.read_text().count(text) < count:
        assert time.monotonic() < deadline, f"{text!r} did not come:\n{path.read_text()}"
        time.sleep(0.05)


def start(command, log, **options):
    # Python's children get default signal handlers; background jobs of a shell would ignore INT.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log.open("w"), stderr=subprocess.STDOUT, **options)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_a_stop_signal_lets_every_rank_save(program, tmp_path, number):
    log = tmp_path / "log"
    process = start([MPIRUN, "-np", "3", program], log)
    wait_for(log, "started", 3)
    process.send_signal(number)
    assert process.wait(30) == 75, log.read_text()
    assert log.read_text().count(f"saved after signal {signal.SIGUSR2.value}") == 3


def test_ctrl_c_on_a_terminal_lets_every_rank_save(program, tmp_path):
    log = tmp_path / "log"
    log.touch()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(MPIRUN, [str(MPIRUN), "-np", "2", "bash", "-c", f"exec {program} >> {log}"])
    wait_for(log, "started", 2)
    os.write(terminal, b"\x03")
    wait_for(log, "saved", 2)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 75
    os.close(terminal)


def test_a_stop_before_the_ranks_listen_is_one_to_resume_from(tmp_path):
    log = tmp_path / "log"
    process = start([MPIRUN, "-np", "2", "bash", "-c", "echo started; exec sleep 60"], log)
    wait_for(log, "started", 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75, log.read_text()


def started_through(agent):
    """Returns settings with which mpirun calls `agent` in ssh's place: names of Open MPI 4, then of Open MPI 5."""
    return {"OMPI_MCA_plm": "rsh", "OMPI_MCA_plm_rsh_agent": str(agent), "PRTE_MCA_plm": "ssh", "PRTE_MCA_plm_ssh_agent": str(agent)}


@pytest.fixture
def far_host(tmp_path):
    """Makes a host for mpirun on this machine. What mpirun starts there writes down its process id."""
    agent = tmp_path / "agent"
    # Open MPI 5 sets variables before it names its daemon; with exec the daemon keeps the noted process id.
    daemon = r"sed -E 's#(^|;) *([^; ]*[op]rted) #\1exec \2 #'"
    agent.write_text(f'''#!/bin/sh\nshift\necho $$ > {tmp_path}/daemon\nexec sh -c "$(printf %s "$*" | {daemon})"\n''')
    agent.chmod(0o755)
    return started_through(agent), tmp_path / "daemon"


def test_a_lost_host_ends_with_the_code_for_a_lost_peer(program, tmp_path, far_host):
    settings, daemon = far_host
    log = tmp_path / "log"
    process = start([MPIRUN, "--host", "far.invalid:2", "-np", "2", program], log, env=os.environ | settings)
    wait_for(log, "started", 2)
    os.kill(int(daemon.read_text()), signal.SIGKILL)
    assert process.wait(30) == 6, log.read_text()


def test_a_host_that_ssh_does_not_reach_ends_with_the_code_for_a_lost_peer(program, tmp_path):
    agent = tmp_path / "agent"
    agent.write_text("#!/bin/sh\nexit 255\n")
    agent.chmod(0o755)
    settings = started_through(agent)
    log = tmp_path / "log"
    process = start([MPIRUN, "--host", "far.invalid:1", "-np", "1", program], log, env=os.environ | settings)
    assert process.wait(30) == 6, log.read_text()


def on_a_terminal(columns, command, **variables):
    return terminal.on_a_terminal(columns, command, os.environ | {"TERM": "xterm"} | variables)


def test_ranks_are_told_how_wide_the_terminal_behind_their_pipe_is(tmp_path):
    ask = [str(MPIRUN), "-np", "1", "bash", "-c", "echo columns=$NEOLOOM_TERMINAL_COLUMNS."]
    assert "columns=111." in on_a_terminal(111, ask)
    assert "columns=80." in on_a_terminal(0, ask)  # a terminal that does not know its width
    assert "columns=." in on_a_terminal(111, ask, TERM="dumb")
    to_a_file = ["/bin/bash", "-c", 'exec "$@" 2>/dev/null', "bash", *ask]
    assert "columns=." in on_a_terminal(111, to_a_file)


def test_ranks_on_another_host_are_told_about_the_terminal(far_host):
    settings, _ = far_host
    forgetful = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | settings
    agent = pathlib.Path(settings["OMPI_MCA_plm_rsh_agent"])
    agent.write_text(agent.read_text().replace("exec sh", "exec env -u NEOLOOM_TERMINAL_COLUMNS sh"))
    ask = [str(MPIRUN), "--host", "far.invalid:1", "-np", "1", "bash", "-c", "echo columns=$NEOLOOM_TERMINAL_COLUMNS."]
    assert "columns=111." in on_a_terminal(111, ask, **forgetful)
    # mpirun would refuse -x here
    assert "columns=." in on_a_terminal(111, ask, **forgetful, OMPI_MCA_mca_base_env_list="HOME")


def test_exit_codes_pass_through(program):
    for code in (0, 5, 74):
        done = subprocess.run([MPIRUN, "-np", "2", program], env=os.environ | {"PLANNED_CODE": str(code)}, capture_output=True)
        assert done.returncode == code


def test_settings_from_outside_win(tmp_path):
    command = ["-np", "1", "bash", "-c", "echo $OMPI_MCA_mpi_yield_when_idle $OMPI_MCA_oob_tcp_keepalive_time"]
    output = subprocess.run([MPIRUN, *command], env=os.environ | {"OMPI_MCA_mpi_yield_when_idle": "0"}, capture_output=True, text=True)
    assert output.stdout.split() == ["0", "5"]


@pytest.fixture
def job(program, tmp_path):
    """Makes a checkout with the program in neoloom's place, and a scontrol that writes down what it is asked."""
    (tmp_path / "build").mkdir()
    (tmp_path / "cluster").symlink_to(ROOT / "cluster")
    (tmp_path / "build/neoloom").symlink_to(program)
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin/scontrol"
    scontrol.write_text(f"#!/bin/sh\necho scontrol $* >> {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    (tmp_path / "asked").touch()

    def run(log, *arguments, **variables):
        environment = os.environ | {
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "17",
            "NEOLOOM_RESTART_PAUSE_SECONDS": "0", "OMPI_MCA_plm": "isolated",
        } | variables
        return start(["bash", SBATCH, "run.yaml", *arguments], log, env=environment, cwd=tmp_path)

    return run, tmp_path


def test_the_warning_before_the_time_limit_saves_and_requeues(job):
    run, folder = job
    log = folder / "log"
    process = run(log)
    wait_for(log, "started")
    process.send_signal(signal.SIGUSR2)
    assert process.wait(30) == 0
    assert "saved" in log.read_text()
    assert (folder / "asked").read_text() == "scontrol requeue 17\n"


def test_requeues_are_bounded(job):
    run, folder = job
    process = run(folder / "log", PLANNED_CODE="75", SLURM_RESTART_COUNT="3", NEOLOOM_MAX_REQUEUES="3")
    assert process.wait(30) == 75
    assert (folder / "asked").read_text() == ""


def test_a_lost_peer_restarts_inside_the_allocation_first(job):
    run, folder = job
    process = run(folder / "log", PLANNED_CODE="6", NEOLOOM_MAX_RESTARTS="1")
    assert process.wait(60) == 0
    log = (folder / "log").read_text()
    ranks = log.count("started")
    assert ranks % 2 == 0 and log.count("inside the allocation") == 1
    assert (folder / "asked").read_text() == "scontrol requeue 17\n"


def test_a_crash_is_tried_again_inside_the_allocation_but_not_requeued(job):
    run, folder = job
    process = run(folder / "log", PLANNED_CODE="139", NEOLOOM_MAX_RESTARTS="1")
    assert process.wait(60) == 139
    assert (folder / "log").read_text().count("inside the allocation") == 1
    assert (folder / "asked").read_text() == ""


def test_output_that_could_not_be_written_ends_the_job(job):
    run, folder = job
    process = run(folder / "log", PLANNED_CODE="74")
    assert process.wait(60) == 74
    assert (folder / "log").read_text().count("inside the allocation") == 0
    assert (folder / "asked").read_text() == ""


def test_a_warning_between_two_starts_requeues_instead_of_starting_again(job):
    run, folder = job
    log = folder / "log"
    process = run(log, PLANNED_CODE="6", NEOLOOM_RESTART_PAUSE_SECONDS="3")
    wait_for(log, "inside the allocation")
    ranks = log.read_text().count("started")
    process.send_signal(signal.SIGUSR2)
    assert process.wait(30) == 0
    assert log.read_text().count("started") == ranks
    assert (folder / "asked").read_text() == "scontrol requeue 17\n"


def test_a_cancelled_job_saves_and_does_not_rise_again(job):
    run, folder = job
    log = folder / "log"
    process = run(log)
    wait_for(log, "started")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75
    assert "saved" in log.read_text()
    assert (folder / "asked").read_text() == ""


def test_a_job_that_finds_no_program_says_where_it_looked(job):
    run, folder = job
    (folder / "build/neoloom").unlink()
    process = run(folder / "log")
    assert process.wait(30) == 2
    assert f"there is no {folder}/build/neoloom" in (folder / "log").read_text()
    assert (folder / "asked").read_text() == ""


def test_an_installed_program_is_found_in_its_prefix(job):
    run, folder = job
    prefix = folder / "prefix"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "share/neoloom").mkdir(parents=True)
    (prefix / "bin/neoloom").symlink_to(folder / "build/neoloom")
    (prefix / "share/neoloom/mpirun.sh").symlink_to(MPIRUN)
    process = run(folder / "log", NEOLOOM_ROOT=str(prefix), PLANNED_CODE="74")
    assert process.wait(60) == 74
    assert "started" in (folder / "log").read_text()


ARRAY = ("--set", "trainer_config.output_dir=runs/%A/seed-%a", "--set", "trainer_config.seed=%a")


def test_a_task_of_a_job_array_has_its_index_in_the_arguments(job):
    run, folder = job
    program = folder / "build/neoloom"
    program.unlink()
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/arguments\n')
    program.chmod(0o755)
    process = run(folder / "log", *ARRAY, SLURM_ARRAY_TASK_ID="3", SLURM_ARRAY_JOB_ID="90")
    assert process.wait(30) == 0
    assert (folder / "arguments").read_text().split()[3:] == [
        "--set", "trainer_config.output_dir=runs/90/seed-3", "--set", "trainer_config.seed=3"]


def test_an_index_without_a_job_array_is_refused(job):
    run, folder = job
    process = run(folder / "log", *ARRAY)
    assert process.wait(30) == 2
    assert "sbatch --array" in (folder / "log").read_text()


def test_errors_that_a_restart_does_not_cure_end_the_job(job):
    run, folder = job
    process = run(folder / "log", PLANNED_CODE="3")
    assert process.wait(30) == 3
    assert (folder / "asked").read_text() == ""


@pytest.mark.parametrize("script", sorted(str(p.relative_to(ROOT)) for p in [*ROOT.glob("cluster/**/*.sh"), *ROOT.glob("cluster/**/*.sbatch"), *ROOT.glob("tests/*.sh"), *ROOT.glob("launch/*.sh")]))
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)

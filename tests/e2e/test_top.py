# SPDX-License-Identifier: Apache-2.0
"""neoloom top: one picture of a run, and the live view on a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import time

import common
import pytest
from runs import assert_one_message, write_long_run

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    data = common.make_data(tmp_path_factory.mktemp("data"))
    config = common.make_config("classification", data, tmp_path_factory.mktemp("cache"))
    run = common.Run(tmp_path_factory.mktemp("runs") / "run", config)
    run.train(2).expect(0)
    return run


def once(folder, code, **variables):
    told = common.neoloom(0, "top", "--run", folder, "--once", **variables).expect(code)
    assert told.err == "" and "\x1b" not in told.out
    return told.out.splitlines()


def test_one_picture_of_a_run_of_two_ranks(trained):
    lines = once(trained.folder, 0, COLUMNS="100", LC_ALL="C.UTF-8")
    text = "\n".join(lines)
    assert lines[0].startswith(f"run {trained.folder}"[:60]) and "finished, " in lines[0]
    [*_, train] = trained.events("train")
    [*_, last] = trained.events("eval")
    best = min(trained.events("eval"), key=lambda event: event["eval_loss"])
    assert "step     15 of 15 (100.0 %), epoch 3.00" in lines
    assert f"eval     step {last['step']}: loss {last['eval_loss']:.4f}, accuracy {last['eval_accuracy']:.4f}" in text
    assert f"best     step {best['step']}: loss {best['eval_loss']:.4f}" in lines
    assert f"lr       {train['learning_rate']:.2e}, gradient norm" in text and "saved    step 15, " in text
    [loss] = [line for line in lines if line.startswith("loss ")]
    assert sum(loss.count(sign) for sign in "▁▂▃▄▅▆▇█") == 15 and "█" in loss and "▁" in loss
    assert [line.split()[0] for line in lines[-4:]] == ["rank", "0", "1", "all"] and "2 ranks" in lines[-1]
    assert max(map(len, lines)) <= 100
    plain = once(trained.folder, 0, LC_ALL="C", LANG="C.UTF-8")
    assert all(line.isascii() and len(line) <= 80 for line in plain)


def test_a_narrow_picture_keeps_the_end_of_the_path(trained):
    for columns in ("40", "24", "8"):
        lines = once(trained.folder, 0, COLUMNS=columns)
        assert max(map(len, lines)) <= int(columns)
    first = once(trained.folder, 0, COLUMNS="40")[0]
    assert first.startswith("run ~") and str(trained.folder).endswith(first.split()[1][1:]) and "finished" in first


def test_one_picture_while_it_trains_has_the_exit_code_of_status(trained, tmp_path):
    run = common.Run(tmp_path / "run", common.merged(trained.config, {"trainer_config": {"max_steps": 2000}}))
    process = run.start(0)
    try:
        assert common.wait_until(lambda: (run.folder / "metrics.jsonl").exists() and run.events("train"), process)
        lines = once(run.folder, 10)
        assert "running, heard " in lines[0] and f"process {process.pid} on " in lines[1]
        assert any(" left" in line and " of 2000 " in line for line in lines)
        narrow = once(run.folder, 10, COLUMNS="40")
        assert any(line.startswith("step ") and line.endswith(" left") for line in narrow), narrow
    finally:
        common.end(process)
    assert any("next     the same train command resumes" in line for line in once(run.folder, 11))


def test_a_folder_that_is_none_of_a_run_is_refused(tmp_path):
    ended = common.neoloom(0, "top", "--run", tmp_path / "later", "--once").expect(2)
    assert_one_message(ended, tmp_path / "later", "is not a run folder")
    assert "from 0.1 to 86400" in common.neoloom(0, "top", "--run", tmp_path, "--interval", "0").expect(2).err


class Terminal:
    """A live view on a terminal of its own."""

    def __init__(self, folder, rows=24, columns=80, **variables):
        self.text = ""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            environment = common.environment(TERM="xterm", LC_ALL="C.UTF-8", **variables)
            command = [str(common.NEOLOOM), "top", "--run", str(folder), "--interval", "0.1"]
            os.execve(command[0], command, environment)

    def read(self, seconds=0.05):
        """Reads for so long. Returns False when the program has ended."""
        end = time.monotonic() + seconds
        while select.select([self.master], [], [], max(0, end - time.monotonic()))[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                return False
            self.text += piece.decode()
        return True

    def wait_for(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition(self.screen()):
            assert time.monotonic() < deadline, self.screen()
            self.read()

    def screen(self):
        """Returns the lines of the last whole picture."""
        pictures = self.text.split("\x1b[H")
        whole = [picture for picture in pictures if picture.endswith("\x1b[J")]
        return whole[-1].removesuffix("\x1b[J").replace("\x1b[K", "").split("\r\n") if whole else []

    def modes(self):
        """Whether the terminal echoes, waits for whole lines, and makes signals of keys."""
        flags = termios.tcgetattr(self.master)[3]
        return tuple(bool(flags & mode) for mode in (termios.ECHO, termios.ICANON, termios.ISIG))

    def ended(self):
        deadline = time.monotonic() + 30
        while self.read():
            assert time.monotonic() < deadline
        _, status = os.waitpid(self.pid, 0)
        assert self.modes() == (True, True, True), "the terminal is as it was"
        os.close(self.master)
        return os.waitstatus_to_exitcode(status)


def train_line(step, loss=1.0):
    device = {"rank": 0, "host": "node1", "device": "cpu", "tokens_per_s": 10.0 * step}
    return json.dumps({"event": "train", "step": step, "loss": loss, "learning_rate": 1e-3, "step_seconds": 1.0,
                       "devices": [device], "time": time.time()}) + "\n"


def append(folder, text):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(text)


def test_a_live_view_follows_a_run_from_before_its_start_and_gives_the_terminal_back(tmp_path):
    folder = tmp_path / "run"
    terminal = Terminal(folder)
    terminal.wait_for(lambda lines: lines and lines[0].startswith("waiting for ") and "q: quit" in lines[-1])
    assert terminal.text.startswith(ENTER) and terminal.modes() == (False, False, True)
    folder.mkdir()
    append(folder, json.dumps({"event": "run_start", "total_steps": 40}) + "\n" + train_line(10))
    terminal.wait_for(lambda lines: any("10 of 40 (25.0 %)" in line for line in lines))
    append(folder, train_line(20)[:30])
    terminal.read(0.3)
    assert any("10 of 40" in line for line in terminal.screen()), "half a line does not count"
    append(folder, train_line(20)[30:])
    terminal.wait_for(lambda lines: any("20 of 40 (50.0 %)" in line for line in lines))
    assert len(terminal.screen()) == 24
    # A smaller window, at once.
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 40, 0, 0))
    terminal.wait_for(lambda lines: len(lines) == 12)
    # Another run's file in its place.
    (folder / "metrics.jsonl").write_text(json.dumps({"event": "run_start", "total_steps": 8}) + "\n" + train_line(2))
    terminal.wait_for(lambda lines: any("2 of 8 (25.0 %)" in line for line in lines))
    os.write(terminal.master, b"q")
    assert terminal.ended() == 0
    assert terminal.text.endswith("\x1b[?7h\x1b[?25h" + LEAVE) and terminal.text.count(ENTER) == 1


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_signals_give_the_terminal_back(tmp_path, number, code):
    append(tmp_path, train_line(1))
    terminal = Terminal(tmp_path)
    terminal.wait_for(lambda lines: any(line.strip().startswith("\x1b[90mstep") for line in lines))
    os.write(terminal.master, b"\x03") if number == signal.SIGINT else os.kill(terminal.pid, number)
    assert terminal.ended() == code
    assert terminal.text.endswith(LEAVE)


def test_a_stopped_view_leaves_the_screen_until_it_goes_on(tmp_path):
    append(tmp_path, train_line(1))
    terminal = Terminal(tmp_path, NO_COLOR="1")
    terminal.wait_for(lambda lines: any(line.startswith("step     1") for line in lines))
    assert "\x1b[3" not in terminal.text and "\x1b[9" not in terminal.text, "NO_COLOR"
    # A session leader with the only process group cannot be stopped by its terminal; the kernel drops the signal.
    os.kill(terminal.pid, signal.SIGTSTP)
    terminal.wait_for(lambda _: terminal.text.count(ENTER) == 2)
    assert terminal.text.count(LEAVE) == 1
    os.write(terminal.master, b"q")
    assert terminal.ended() == 0


def test_a_long_run_shows_its_extremes_and_its_last_step(tmp_path):
    write_long_run(tmp_path, 20_000, spike=12_345)
    lines = once(tmp_path, 0, COLUMNS="100", LC_ALL="C.UTF-8")
    assert "step     20000 of 20000 (100.0 %), epoch 20.00" in lines
    [loss] = [line for line in lines if line.startswith("loss ")]
    bars = re.sub("[^▁▂▃▄▅▆▇█]", "", loss)
    assert loss.startswith("loss     1.0000 ") and loss.endswith("  1.0000 to 50.000") and 40 < len(bars) < 100
    # The means of some 300 steps fall from 2 to 1. One step of 50 is a bump.
    rises = [i for i in range(1, len(bars)) if bars[i] > bars[i - 1]]
    assert (bars[0], bars[-1]) == ("█", "▁") and len(rises) == 1 and abs(rises[0] / len(bars) - 12_345 / 20_000) < 0.03
    [_, device, *_] = [line.split() for line in lines[-2:]]
    assert device[:4] == ["0", "node1", "cpu", "20,000"]
    told = json.loads(common.neoloom(0, "status", "--run", tmp_path, "--json").expect(0).out)
    assert (told["step"], told["loss"], told["evaluation"]["step"]) == (20_000, 1.0, 20_000)


def test_a_dumb_terminal_gets_one_picture(tmp_path):
    append(tmp_path, train_line(1))
    pid, master = pty.fork()
    if pid == 0:
        os.execve(common.NEOLOOM, ["neoloom", "top", "--run", str(tmp_path)], common.environment(TERM="dumb"))
    terminal = object.__new__(Terminal)
    terminal.pid, terminal.master, terminal.text = pid, master, ""
    assert terminal.ended() == 13
    assert "step     1" in terminal.text and ENTER not in terminal.text

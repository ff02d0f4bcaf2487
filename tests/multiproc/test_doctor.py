# SPDX-License-Identifier: Apache-2.0
"""`neoloom doctor` on the machine that runs the tests."""
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NEOLOOM = Path(os.environ["NEOLOOM_BUILD_DIR"]) / "neoloom"
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
HAS_GPU = any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/nvidia0"))


ROW = re.compile(r"^    (?P<kernel>\S.*?) {2,}(?P<dtype>\S.*?) {2,}(?P<verdict>(?P<error>\S+) +(?P<limit>\S+)  ok|not used on this CPU: .+)$",
                 re.MULTILINE)


def doctor(*arguments, ranks=0, **variables):
    launcher = ["mpirun", "-np", str(ranks), "--oversubscribe"] if ranks else []
    return subprocess.run([*launcher, NEOLOOM, "doctor", *arguments], env={**ENVIRONMENT, **variables}, capture_output=True,
                          text=True, timeout=120)


def rows(done):
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert re.search(r"\n(All is well|\d warnings?: .*may be slow or stop)\.\n$", done.stdout)
    table = done.stdout[done.stdout.index("verdict\n") + len("verdict\n"):done.stdout.index("placement\n")]
    found = [match.groupdict() for match in ROW.finditer(table)]
    assert len(found) == table.count("\n"), table
    return found


def test_every_kernel_and_the_transport_are_well_on_two_ranks():
    done = doctor("--device", "cpu", ranks=2)
    results = [row for row in rows(done) if row["error"]]
    assert len(results) >= 12
    assert all(float(row["error"]) <= float(row["limit"]) for row in results)
    # Rounding must show: a test that compares a result with itself would find no difference.
    assert all(float(row["error"]) > 0 for row in results if not row["kernel"].startswith("LibTorch's"))
    assert "exact all-reduce" in done.stdout
    assert len(re.findall(r"^  rank \d on ", done.stdout, re.M)) == 2
    for library in ("LibTorch", "Open MPI"):
        assert library in done.stdout


def test_kernels_that_the_cpu_cannot_run_are_listed_with_the_reason():
    limited = rows(doctor("--device", "cpu", ONEDNN_MAX_CPU_ISA="AVX"))
    assert {(row["kernel"], row["dtype"]) for row in limited} == {
        (row["kernel"], row["dtype"]) for row in rows(doctor("--device", "cpu"))}
    reasons = {row["kernel"]: row["verdict"] for row in limited if not row["error"]}
    assert reasons["packed GEMM"].startswith("not used on this CPU: needs AVX")
    assert "ONEDNN_MAX_CPU_ISA is AVX" in reasons["tiled attention, global"]
    assert {"batched attention, global", "softmax", "cross entropy", "GELU", "LayerNorm", "low-rank GEMM"} <= {
        row["kernel"] for row in limited if row["error"]}


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
@pytest.mark.parametrize("ranks", [0, 2])
def test_gpu_that_is_not_there_is_one_sentence_and_code_eight(ranks):
    done = doctor("--device", "cuda", ranks=ranks)
    assert done.returncode == 8, done.stderr
    assert done.stderr.count("this machine has none") == 1
    assert "runtime.device: cpu" in done.stderr


def launch(*ranks, code):
    """Runs one rank for each command; returns the lines of the checks."""
    words = ["mpirun", "--oversubscribe"]
    for command in ranks:
        words += [*([":"] if len(words) > 2 else []), "-np", "1", *map(str, command)]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout.split("\nchecks\n")[1].splitlines()


def states(lines):
    return {match[2]: match[1] for line in lines if (match := re.match(r"  (ok|warn|fail) +([^:]+): ", line))}


ALONE = [NEOLOOM, "doctor", "--device", "cpu"]
MACHINE = ("device", "CPU instruction sets", "environment variables that choose kernels")
CHECKS = {*MACHINE, "locked memory", "open files", "/dev/shm", "program", "MPI", "disk space", "disk speed", "Slurm"}


def test_one_object_for_all_ranks(tmp_path):
    secret = "hunter2"
    done = doctor("--device", "cpu", "--json", "--output_dir", str(tmp_path), ranks=2, HF_TOKEN=secret,
                  HOME=str(tmp_path), SLURM_JOB_ID="77", SLURM_JOB_NUM_NODES="3")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert secret not in done.stdout and str(tmp_path) not in done.stdout
    assert report["exit_code"] == 0 and report["state"] in ("ok", "warn")
    assert [rank["rank"] for rank in report["ranks"]] == [0, 1] and "thread" in report["ranks"][1]["placement"]
    [host] = report["hosts"]
    [device] = host["devices"]
    assert device["device"] == "cpu" and len(device["kernels"]) >= 12
    assert all(kernel["state"] in ("ok", "not used") for kernel in device["kernels"])
    assert report["transport"]["state"] == "ok"
    checks = {check["name"]: check for check in report["checks"]}
    assert set(checks) == CHECKS | {"clock", "all-reduce"}
    assert all(("remedy" in check) == (check["state"] != "ok") for check in checks.values())
    assert checks["clock"]["text"] == "within 0.5 s of rank 0's" and "ranks" not in checks["clock"]
    assert "8 bytes in " in checks["all-reduce"]["text"] and " GB/s" in checks["all-reduce"]["text"]
    assert "job 77, 3 nodes" in checks["Slurm"]["text"]
    assert not any(tmp_path.iterdir()), "the disk is left as it was"


def test_a_rank_of_another_build_fails_and_is_named(tmp_path):
    other = tmp_path / "neoloom"
    shutil.copy(NEOLOOM, other)
    with open(other, "ab") as file:
        file.write(b"\0")
    lines = launch(ALONE, [other, *ALONE[1:]], code=8)
    assert states(lines)["program"] == "fail" and sum("  program: " in line for line in lines) == 2
    assert any(line.startswith("  fail  program: ") and "(rank 1 on " in line for line in lines)
    assert "        -> install the same build on all hosts" in lines


def test_ranks_that_train_would_refuse_fail(tmp_path):
    lines = launch(ALONE, ["env", "ONEDNN_MAX_CPU_ISA=AVX2", "MKL_CBWR=AVX2", *ALONE], code=8)
    assert [states(lines)[name] for name in MACHINE] == ["ok", "fail", "fail"]
    [sets] = [line for line in lines if line.startswith("  fail  CPU instruction sets: ") and "(rank 1 on " in line]
    assert "avx2" in sets.split() and "up to AVX2" in sets
    remedy = lines[lines.index(sets) + 1]
    assert "train refuses ranks that differ in this" in remedy and "runtime.allow_mixed_devices: true" in remedy
    [variables] = [line for line in lines if "that choose kernels: " in line and "(rank 1 on " in line]
    assert "MKL_CBWR=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 " in variables
    assert lines[-1] == "Some checks fail: mend what they name before you train."


def test_a_rank_with_fewer_open_files_is_named():
    lines = launch(ALONE, ["bash", "-c", 'ulimit -Sn 256; exec "$@"', "bash", *ALONE], code=0)
    [warned] = [line for line in lines if line.startswith("  warn  open files: ")]
    assert "at most 256" in warned and "(rank 1 on " in warned
    assert lines[lines.index(warned) + 1].startswith("        -> ulimit -n ")
    assert re.fullmatch(r"\d warnings?: training works, and may be slow or stop\.", lines[-1])
    assert "All is well." not in lines


def test_a_clock_that_is_off_is_measured(tmp_path):
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text("""#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = syscall(SYS_clock_gettime, clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec -= 90;
  return result;
}
""")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    lines = launch(ALONE, ["env", f"LD_PRELOAD={library}", *ALONE], ALONE, code=0)
    [warned] = [line for line in lines if line.startswith("  warn  clock: ")]
    behind = float(re.search(r"([0-9.]+) s behind rank 0's", warned)[1])
    assert abs(behind - 90) < 1 and "(rank 1 on " in warned
    assert any(line.startswith("  ok    clock: ") and "(rank 0, 2 on " in line for line in lines)


def test_a_folder_that_cannot_be_written_fails():
    done = doctor("--device", "cpu", "--output_dir", "/proc/self/runs")
    assert done.returncode == 8
    assert "  fail  disk speed: cannot create a temporary file in the folder: " in done.stdout
    assert "-> give --output_dir" in done.stdout and done.stdout.endswith("before you train.\n")
    assert "clock" not in done.stdout and "all-reduce:" not in done.stdout, "one rank has no peers"

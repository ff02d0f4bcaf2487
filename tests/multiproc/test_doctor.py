# SPDX-License-Identifier: Apache-2.0
"""`neoloom doctor` on the machine that runs the tests."""
import os
import re
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
    assert done.stdout.endswith("All is well.\n")
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

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


def doctor(*arguments, ranks=0):
    launcher = ["mpirun", "-np", str(ranks), "--oversubscribe"] if ranks else []
    return subprocess.run([*launcher, NEOLOOM, "doctor", *arguments], env=ENVIRONMENT, capture_output=True, text=True,
                          timeout=120)


def test_every_kernel_and_the_transport_are_well_on_two_ranks():
    done = doctor("--device", "cpu", ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    results = re.findall(r"^ +ok +(.+?) +difference (\S+) \(allowed (\S+)\)", done.stdout, re.M)
    assert len(results) >= 12
    assert all(float(difference) <= float(allowed) for _, difference, allowed in results)
    # Lower precision must show as one: a test that compares a result with itself would find no difference.
    differences = {name.strip(): float(difference) for name, difference, _ in results}
    assert differences["matrix product bf16"] > differences["matrix product fp16"] > differences["matrix product fp32"] > 0
    assert "exact all-reduce" in done.stdout
    assert len(re.findall(r"^  rank \d on ", done.stdout, re.M)) == 2
    for library in ("LibTorch", "Open MPI"):
        assert library in done.stdout


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
@pytest.mark.parametrize("ranks", [0, 2])
def test_gpu_that_is_not_there_is_one_sentence_and_code_eight(ranks):
    done = doctor("--device", "cuda", ranks=ranks)
    assert done.returncode == 8, done.stderr
    assert done.stderr.count("this machine has none") == 1
    assert "runtime.device: cpu" in done.stderr

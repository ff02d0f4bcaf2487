# SPDX-License-Identifier: Apache-2.0
"""What neoloom's own CUDA kernels take of a GPU, by ptxas: registers and shared memory as in cuda_kernels.txt, no spills.

After a review of what changed, this rewrites the table: NEOLOOM_WRITE_TABLES=1 ctest --test-dir build -R cuda_kernels
"""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(os.environ["NEOLOOM_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["NEOLOOM_BUILD_DIR"])
NVCC = pathlib.Path(sys.executable).parents[1] / "gpu-tools/nvidia/cu13/bin/nvcc"  # bootstrap.sh --gpu_tools
TABLE = ROOT / "tests/structure/cuda_kernels.txt"
ARCHITECTURES = ("80", "90")
HEADING = """\
# Of each kernel in runtime/cuda/kernels: architecture, registers of a thread, bytes of shared memory of a block. None has
# a stack or spills. See test_cuda_kernels.py.
"""
ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")
MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
NAME = re.compile(r"(\w+)<(.*)>\(")


def compile_verbosely(folder):
    """Returns what ptxas says of every kernel when it is compiled with the build's flags."""
    asked = ["ninja", "-C", BUILD, "-t", "commands", "runtime/cuda/fused_kernels.o"]
    built = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    command = shlex.split(built.partition("&& ")[2].partition(" && ")[0])
    command = [word.replace(str(BUILD / "runtime/cuda"), str(folder)) for word in command]
    done = subprocess.run([*command, "-Xptxas", "-v"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stderr


def readable(symbol):
    """_ZN...residual_normI6__halfLi8ELi1EE... -> residual_norm<__half, 8, 1>"""
    text = subprocess.run(["c++filt", symbol], capture_output=True, text=True, check=True).stdout
    name, arguments = NAME.search(text.replace("neoloom::cuda::", "").replace("(anonymous namespace)::", "")).groups()
    return f"{name}<{arguments.strip()}>"


def resources(said):
    """Yields (kernel, architecture, registers, shared, (stack, spill stores, spill loads)) of ptxas's output."""
    for block in re.split(r"(?=ptxas info\s+: Compiling entry)", said):
        if entry := ENTRY.search(block):
            registers, shared = USED.search(block).groups()
            yield readable(entry[1]), entry[2], int(registers), int(shared or 0), tuple(map(int, MEMORY.search(block).groups()))


def table(found):
    lines = [f"{kernel:<48} sm_{architecture} {registers:>4} {shared:>4}" for kernel, architecture, registers, shared, _ in found]
    return HEADING + "\n".join(sorted(lines)) + "\n"


def test_spills_are_seen():
    said = ("ptxas info    : Compiling entry function '_ZN7neoloom4cuda3runIfLi8EEEvv' for 'sm_90'\n"
            "ptxas info    : Function properties for _ZN7neoloom4cuda3runIfLi8EEEvv\n"
            "    24 bytes stack frame, 16 bytes spill stores, 8 bytes spill loads\n"
            "ptxas info    : Used 255 registers, used 1 barriers, 32 bytes smem, 456 bytes cmem[0]\n")
    assert list(resources(said)) == [("run<float, 8>", "90", 255, 32, (24, 16, 8))]


@pytest.mark.skipif(not NVCC.is_file(), reason="no CUDA compiler: bash cluster/bootstrap/bootstrap.sh --gpu_tools installs it")
def test_registers_and_shared_memory_are_those_of_the_table(tmp_path):
    found = list(resources(compile_verbosely(tmp_path)))
    assert {architecture for _, architecture, *_ in found} == set(ARCHITECTURES)
    assert {kernel.split("<")[0] for kernel, *_ in found} == {"residual_norm", "residual_norm_grad", "pack_by_pack"}
    spilled = [kernel for kernel, *_, memory in found if memory != (0, 0, 0)]
    assert not spilled, f"these keep values outside registers: {spilled}"
    if os.environ.get("NEOLOOM_WRITE_TABLES"):
        TABLE.write_text(table(found))
    assert table(found) == TABLE.read_text()

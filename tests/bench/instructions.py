# SPDX-License-Identifier: Apache-2.0
"""Counts instructions under valgrind's callgrind: the tokenizer, and the host side of a step. Unlike times they repeat, on
any load; compare them between commits built alike. valgrind has no AVX-512: the library takes its AVX2 kernels."""

import re
import shutil
import struct
import subprocess

from context import NotMeasured
from report import ROOT, Section
from sides import SideFailed, environment, make_request

FEW, MANY = 2, 12  # steps: their difference leaves start and end out
LAYERS = 12
REPEATS = 1e-3  # addresses and process ids differ, and with them some branches of MPI, allocators and hash tables


def count(command, stdin):
    """Counts the instructions of a whole process."""
    full = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *map(str, command)]
    done = subprocess.run(full, input=stdin, env=environment(1) | {"OMP_WAIT_POLICY": "passive"}, capture_output=True)
    found = re.search(rb"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        raise SideFailed(f"{' '.join(full)} ended with {done.returncode}:\n{done.stderr.decode()[-2000:]}")
    return int(found.group(1))


def tokenizer(context):
    """Counts instructions for each byte of a fixed text. It needs no --data: it makes a small tokenizer itself."""
    import tiny_model

    text = (ROOT / "LICENSE").read_bytes()
    folder = context.work / "small-tokenizer"
    tiny_model.make_tokenizer(folder, texts=text.decode().splitlines(), vocab_size=2000)
    command = [context.build / "data_probe", "encode", folder]
    counts = [count(command, struct.pack("=I", len(record)) + record) for record in (b"", text)]
    return (counts[1] - counts[0]) / len(text)


def step(context):
    """Counts the instructions of one step of a model so small that its arithmetic hardly counts."""
    import tiny_model

    folder = tiny_model.make_model_folder(context.work / "tiny-model", num_layers=LAYERS, tokenizer=False)
    request = make_request(context.work, "instructions", vocabulary=500, model=str(folder), head="single_label",
                           frozen="float32", compute="float32", rows=1, length=4, threads=1)
    command = [context.build / "step_bench", request]
    subprocess.run(list(map(str, command)), input=b"end\n", env=environment(1), capture_output=True, check=True)
    counts = {steps: count(command, b"step 1\n" * steps + b"end\n") for steps in (FEW, MANY)}
    return (counts[MANY] - counts[FEW]) / (MANY - FEW)


def twice(measure, context):
    """Measures a figure twice, because it must repeat."""
    first, again = measure(context), measure(context)
    if abs(again - first) > REPEATS * first:
        raise SideFailed(f"{measure.__name__}: {first:.1f} instructions, then {again:.1f}: the count does not repeat")
    return dict(instructions=first, again=again)


def run(context):
    if shutil.which("valgrind") is None:
        raise NotMeasured("not measured: there is no valgrind (Debian: apt-get install valgrind)")
    section = Section("Instructions")
    context.say("instructions: tokenizer")
    section.data["tokenizer_per_byte"] = twice(tokenizer, context)
    context.say("instructions: step")
    section.data["step"] = twice(step, context)
    section.add("Counts of callgrind, one thread, each measured twice.")
    names = {"tokenizer_per_byte": "tokenizer, for each byte of `LICENSE`, cold cache",
             "step": f"host side of a step: {LAYERS} layers of width 16, 1 x 4 tokens"}
    rows = [[names[key], *(f"{value:,.1f}" for value in found.values())] for key, found in section.data.items()]
    section.add_table(["what", "instructions", "again"], rows)
    return section

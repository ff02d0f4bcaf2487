# SPDX-License-Identifier: Apache-2.0
"""Measures a token store of many short rows, and 2.7B weights on their way into the shared cache."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import runs
from context import NotMeasured
from report import Section, figure, target_cells
from sides import SideFailed, environment

STORE_SECONDS, COPY_SHARE, MEMORY_GIB = 120, 0.8, 1.0
CONVERSION_BYTES = 27_000_000_000  # source, copy, converted file


def measured(command, threads, stdin=""):
    """Returns standard output, seconds, and peak private memory in GiB of one process."""
    begin = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), env=environment(threads), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    process.stdin.write(stdin)
    process.stdin.close()
    status, private = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        for line in status.read_text().splitlines() if status.exists() else []:
            if line.startswith("RssAnon"):
                private = max(private, int(line.split()[1]))
        time.sleep(0.02)
    if process.returncode != 0:
        raise SideFailed(f"{command[0]} ended with {process.returncode}")
    return process.stdout.read(), time.monotonic() - begin, private / 2**20


def token_store(context, section):
    rows = context.store_rows
    context.say(f"data: token store of {rows} rows")
    texts = runs.read_spam(context.given("classification", "sms_spam"))
    source, target = context.work / "rows.jsonl", context.work / "rows.h5"
    with open(source, "w", encoding="utf-8") as file:
        for i in range(rows):
            text, label = texts[i % len(texts)]
            file.write(json.dumps(dict(text=f"{text[:80]} {i}", label=label)) + "\n")
    out, seconds, private = measured([context.build / "data_probe", "store", context.given("tokenizer", "gpt2-hf"),
                                      source, target, "label=label"], context.threads)
    if int(out) != rows:
        raise SideFailed(f"the token store has {out.strip()} samples instead of {rows}")
    section.data["token_store"] = dict(rows=rows, seconds=seconds, megabytes=source.stat().st_size / 1e6,
                                       private_gib=private)
    section.add_table(["token store", "seconds", "target", "", "private GiB"],
                      [[f"{rows:,} short rows, {source.stat().st_size / 1e6:.0f} MB", figure(seconds),
                        *target_cells(seconds, STORE_SECONDS * rows / 1_000_000, False), f"{private:.2f}"]])
    source.unlink()
    target.unlink()


def forget(path):
    """Takes a file's pages out of the system's cache."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def copy_seconds(source, folder):
    """Returns the seconds for reading `source` and writing half as many bytes, as a conversion to 16 bit does."""
    begin = time.monotonic()
    for path in source:
        with open(path, "rb", buffering=0) as read, open(folder / "copy", "wb", buffering=0) as write:
            while piece := read.read(1 << 23):
                write.write(memoryview(piece)[: len(piece) // 2])
            os.fsync(write.fileno())
    seconds = time.monotonic() - begin
    (folder / "copy").unlink()
    return seconds


def conversion(context, section):
    free = shutil.disk_usage(context.work).free
    if free < CONVERSION_BYTES:
        section.add(f"Conversion of 2.7B: not measured: {context.work} has {free / 1e9:.0f} GB free, it needs "
                    f"{CONVERSION_BYTES / 1e9:.0f}")
        return
    context.say("data: conversion of 2.7B")
    folder, cache = context.model("2.7B", "float32"), context.work / "cache-2.7B"
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        forget(path)
    copied = copy_seconds(files, context.work)
    request = json.dumps(dict(op="prepare", folder=str(folder), cache=str(cache), dtype="float16"))
    source_bytes = sum(path.stat().st_size for path in files)
    section.data["conversion"] = dict(copy_seconds=copied, source_bytes=source_bytes)
    rows = []
    for name in ("first start: SHA-256 and conversion in one pass", "conversion alone, the hash known"):
        for path in [*cache.rglob("*.safetensors"), *files]:
            forget(path)
        for path in cache.rglob("*.safetensors"):
            path.unlink()
        out, _, private = measured([context.build / "model_files_tool"], context.threads, request)
        seconds = json.loads(out)["prepare_seconds"]
        section.data["conversion"][name] = dict(seconds=seconds, private_gib=private)
        rows.append([name, f"{seconds:.1f}", f"{source_bytes / seconds / 1e9:.2f}", f"{copied / seconds:.2f}",
                     *target_cells(copied / seconds, COPY_SHARE), f"{private:.2f}",
                     *target_cells(private, MEMORY_GIB, False)])
    section.add(f"2.7B fp32 safetensors ({source_bytes / 1e9:.1f} GB, nothing of them in the system's cache) to the fp16 "
                f"cache, beside a plain copy that reads the same files and writes half of their bytes: {copied:.1f} s.")
    section.add_table(["2.7B", "seconds", "GB/s read", "speed over the copy", "target", "", "private GiB", "target", ""],
                      rows)
    shutil.rmtree(cache)
    shutil.rmtree(folder)


def run(context):
    section = Section("Data and weights")
    try:
        token_store(context, section)
    except NotMeasured as reason:
        section.add(f"Token store: {reason}")
    conversion(context, section)
    return section

# SPDX-License-Identifier: Apache-2.0
"""Measures the parts of a step with Google Benchmark, each checked once, and the tokenizer beside `tokenizers`."""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from context import NotMeasured
from report import Section, figure, spread, target_cells
from sides import SideFailed, environment

REPETITIONS = 5
SHAPES = ("768x768", "768x3072", "3072x768", "2048x2048", "2048x8192", "8192x2048", "768x50257")
PACKED_TARGET, TOKENIZER_TARGET = 0.9, 10.0  # of LibTorch's rate; MB/s a core


def google(command, threads, **options):
    """Returns the real seconds of every benchmark by name, for each repetition."""
    with tempfile.NamedTemporaryFile(suffix=".json") as output:
        options = dict(benchmark_repetitions=REPETITIONS, benchmark_min_time=0.1, benchmark_out=output.name,
                       benchmark_out_format="json") | options
        flags = [f"--{name}={value}" for name, value in options.items()]
        done = subprocess.run([*command, *flags], env=environment(threads), capture_output=True, text=True)
        if done.returncode != 0:
            raise SideFailed(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        runs = json.loads(Path(output.name).read_text())["benchmarks"]
    wrong = [f"{run['name']}: {run['error_message']}" for run in runs if run.get("error_occurred")]
    if wrong:
        raise SideFailed("results are wrong:\n" + "\n".join(wrong))
    times = {}
    for run in runs:
        if run["run_type"] == "iteration":
            name = run["name"].replace("/real_time", "").split("/iterations")[0].split("/repeats")[0]
            times.setdefault(name, []).append(run["real_time"] * 1e-6)
    return times


def micro_bench(context, pattern, *arguments):
    command = [str(context.build / "micro_bench"), f"--threads={context.threads}", *arguments]
    return google(command, context.threads, benchmark_filter=pattern, benchmark_enable_random_interleaving="true")


def comm_bench(context, ranks):
    return google(["mpirun", "-np", str(ranks), str(context.build / "comm_bench")], 1)


def middle(times, name):
    return statistics.median(times[name])


def gemms(section, times):
    rows = []
    for dtype, count, sizes in itertools.product(("fp32", "bf16"), (1024, 64), SHAPES):
        shape = f"gemm/{dtype}/{sizes}/{count}"
        if f"{shape}/linear" not in times:  # the CPU does not compute in the type
            continue
        inner, outer = map(int, sizes.split("x"))
        rate = {way: 2e-9 * inner * outer * count / middle(times, f"{shape}/{way}")
                for way in ("packed weights", "stored", "onednn", "linear") if f"{shape}/{way}" in times}
        cells = [f"{rate[way]:.0f}" if way in rate else "" for way in ("packed weights", "stored", "onednn", "linear")]
        share = rate["packed weights"] / rate["onednn"] if "packed weights" in rate else None
        section.data[shape] = dict(gflop_per_s=rate, share=share)
        tail = [f"{share:.2f}", *target_cells(share, PACKED_TARGET)] if share else ["", "", ""]
        rows.append([dtype, sizes, count, *cells, *tail])
    section.add("GEMMs of `rows` rows, GFLOP/s: packed weights, as stored (fp32 gradients of inputs), "
                "oneDNN with the weight packed ahead, at::linear. Share: packed weights over oneDNN.")
    section.add_table(["dtype", "shape", "rows", "packed weights", "stored", "oneDNN", "linear", "share", "target", ""], rows)


def attention(section, times):
    rows = []
    for dtype, length in itertools.product(("fp32", "bf16"), (128, 256, 512, 1024, 2048)):
        names = [f"attention/{dtype}/{kind}/{length}/{way}" for kind in ("global", "local")
                 for way in ("forward", "backward")]
        if names[0] not in times:  # no kernel for the type
            continue
        found = {name: 1e6 * middle(times, name) / 2048 for name in names}
        section.data |= {name: dict(us_per_token=value) for name, value in found.items()}
        rows.append([dtype, length, *(f"{value:.2f}" for value in found.values())])
    section.add("Attention of one layer (12 heads of 64), microseconds a token: the local layers' (window 256) must not "
                "grow with the length T.")
    section.add_table(["dtype", "T", "global forward", "global backward", "local forward", "local backward"], rows)


def others(section, times):
    rows = []
    for name in sorted(times):
        values = section.data[name] = spread(times[name])
        rows.append([name, *(figure(1e6 * values[key]) for key in ("median", "min", "max"))])
    section.add_table(["part", "microseconds", "min", "max"], rows)


def tokenizer(section, context):
    folder = context.given("tokenizer", "gpt2-hf")
    text = context.given("text", "wikitext-2", "test.txt")
    times = micro_bench(context, "tokenizer", f"--tokenizer={folder}", f"--text={text}")
    ours = middle(times, "tokenizer/encode")
    megabytes = text.stat().st_size / 1e6
    theirs = float(subprocess.run([sys.executable, __file__, folder, text], env=environment(1), check=True,
                                  capture_output=True, text=True).stdout)
    section.data["tokenizer"] = dict(mb_per_s=megabytes / ours, tokenizers_mb_per_s=megabytes / theirs)
    section.add(f"Tokenizer on {megabytes:.1f} MB of English text, one thread, MB/s.")
    section.add_table(["neoloom", "target", "", "`tokenizers`", "ratio", "target", ""],
                      [[figure(megabytes / ours), *target_cells(megabytes / ours, TOKENIZER_TARGET),
                        figure(megabytes / theirs), figure(theirs / ours), *target_cells(theirs / ours, 1.0)]])


def time_tokenizers(folder, path):
    """Returns the median seconds of `tokenizers` for the whole text, line by line in one thread, in the faster of its two ways."""
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer(f"{folder}/vocab.json", f"{folder}/merges.txt")
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    seconds = {made.encode_batch: [], made._tokenizer.encode_batch_fast: []}
    for _ in range(REPETITIONS):
        for encode, times in seconds.items():
            begin = time.perf_counter()
            encode(lines)
            times.append(time.perf_counter() - begin)
    return min(statistics.median(times) for times in seconds.values())


def run(context):
    section = Section("Parts of a step")
    section.add(f"{context.threads} threads, medians of {REPETITIONS} repetitions in random order.")
    context.say("micro: GEMMs")
    gemms(section, micro_bench(context, "gemm/"))
    context.say("micro: layers and state")
    attention(section, micro_bench(context, "attention/"))
    times = micro_bench(context, "layer_norm|gelu|cross_entropy|gradient_sum|clip|checkpoint")
    others(section, times | {f"{name}, 2 ranks": values for name, values in comm_bench(context, 2).items()})
    try:
        context.say("micro: tokenizer")
        tokenizer(section, context)
    except NotMeasured as reason:
        section.add(f"Tokenizer: {reason}")
    return section


if __name__ == "__main__":
    print(time_tokenizers(*sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""Measures how the time of a token grows with length, batch, rank of the adapters and ranks; how attention's layers grow with
length; what the exact sum costs."""

import itertools
import statistics

from micro import comm_bench, micro_bench, middle
from report import Section, figure, target_cells
from sides import in_turns, logged_steps, make_request, neoloom_side

DTYPE = "bfloat16"
LORA_PARAMETERS = 294_912  # r=8 on q_proj and v_proj of GPT-Neo 125M
RANKS_TARGET, EXACT_TARGET, COMM_TARGET = 0.95, 0.02, 0.01
LENGTHS = (128, 256, 512, 1024, 2048)
LAYERS_OF_A_KIND, WINDOW = 6, 256  # of GPT-Neo 125M: local and global ones by turns
LINEAR_TARGET = 1.25  # the last tokens of a long sample may cost this many times what earlier ones do


def open_side(context, name, rows, length, ranks=1, threads=None, head="causal_lm", **fields):
    request = make_request(context.work, f"growth {name}", model=str(context.model("125M", DTYPE)), head=head,
                           frozen=DTYPE, compute=DTYPE, rows=rows, length=length,
                           threads=threads or context.threads, **fields)
    return request, neoloom_side(context.build, request, ranks)


def compare(context, variants):
    """Measures variants (name, rows, length, options) in turns. Returns results by name, with microseconds a token."""
    opened = {name: open_side(context, name, rows, length, **options) for name, rows, length, options in variants}
    results = in_turns({name: side for name, (_, side) in opened.items()}, context.steps, context.warmup)
    return {name: dict(results[name], us_per_token=1e6 * results[name]["seconds"]["median"] / (rows * length),
                       request=opened[name][0]) for name, rows, length, _ in variants}


def table_of(section, title, context, variants):
    context.say(f"growth: {title}")
    results = compare(context, variants)
    first = next(iter(results.values()))["us_per_token"]
    rows = []
    for name, result in results.items():
        section.data[name] = dict(us_per_token=result["us_per_token"], seconds=result["seconds"],
                                  peak_gib=result["peak_gib"])
        rows.append([name, figure(result["us_per_token"]), f"{result['us_per_token'] / first:.2f}",
                     f"{result['peak_gib']:.2f}"])
    section.add_table([title, "microseconds a token", "over the first", "peak GiB"], rows)
    return results


def ranks(section, context):
    """Measures a step of 12 micro-batches on different numbers of ranks."""
    variants = [("1 rank x 2 threads", 12, 128, dict(ranks=1, threads=2, micro_batches=12))]
    variants += [(f"{count} rank{'s' * (count > 1)} x 1 thread", 12, 128,
                  dict(ranks=count, threads=1, micro_batches=12)) for count in (1, 2, 3, 4)]
    results = table_of(section, "ranks, 12 micro-batches of 1 x 128 a step", context, variants)
    two = results["2 ranks x 1 thread"]
    share = results["1 rank x 2 threads"]["us_per_token"] / two["us_per_token"]
    # The seconds of a logged step include the other sides' turns. So does the base of comm_share: it is turned into seconds.
    steps = logged_steps(two["request"])[context.warmup:]
    waiting = statistics.median(step["step_seconds"] * max(device["comm_share"] for device in step["devices"])
                                for step in steps) / two["seconds"]["median"]
    sums = middle(comm_bench(context, 2), f"all_reduce/{LORA_PARAMETERS}/int64") / two["seconds"]["median"]
    section.data["two ranks"] = dict(speed_over_two_threads=share, all_reduce_share=sums, waiting_share=waiting)
    section.add_table(
        ["two ranks x 1 thread", "measured", "target", ""],
        [["speed over 1 rank x 2 threads", f"{share:.3f}", *target_cells(share, RANKS_TARGET)],
         ["the all-reduce, of a step", f"{100 * sums:.2f} %", f"<= {100 * COMM_TARGET:.0f} %",
          target_cells(sums, COMM_TARGET, False)[1]],
         ["and waiting for the other rank", f"{100 * waiting:.2f} %", "", ""]])


def layers(section, context, steps):
    """Measures attention alone: in local layers the cost of one more token must not depend on the sample's length."""
    context.say("growth: local and global layers")
    times = micro_bench(context, "attention/")
    # The dtype that steps compute in.
    dtype = "bf16" if any(name.startswith("attention/bf16") for name in times) else "fp32"

    def microseconds(kind, length):
        """Returns the time of one sample: the benchmark takes LENGTHS[-1] tokens in samples of `length`."""
        both = sum(middle(times, f"attention/{dtype}/{kind}/{length}/{way}") for way in ("forward", "backward"))
        return 1e6 * both * length / LENGTHS[-1]

    rows = []
    for shorter, length in itertools.pairwise((0, *LENGTHS)):
        cells = []
        for kind in ("local", "global"):
            whole, before = microseconds(kind, length), microseconds(kind, shorter) if shorter else 0.0
            more = (whole - before) / (length - shorter)
            share = LAYERS_OF_A_KIND * whole / length / steps[f"{LENGTHS[-1] // length} x {length}"]["us_per_token"]
            section.data[f"{kind} layers, {length}"] = dict(us_per_token=whole / length, us_of_one_more=more, share=share)
            cells += [figure(whole / length), figure(more), f"{100 * share:.1f} %"]
        rows.append([length, *cells])
    late, early = (section.data[f"local layers, {length}"]["us_of_one_more"] for length in (2048, 1024))
    growth = late / early
    section.data["local layers linear"] = growth
    section.add(f"Attention of one layer, forward and backward in {dtype}, microseconds: a token on average; one more token "
                f"beyond the length above, which is constant where time is linear in the length T (in local layers from "
                f"2 windows of {WINDOW} on); all {LAYERS_OF_A_KIND} layers of the kind in a step of the first table.")
    section.add_table(["T", "local: a token", "one more", "in a step", "global: a token", "one more", "in a step"], rows)
    section.add_table(["local layers", "measured", "target", ""],
                      [["one more token beyond 1024 over one beyond 512", f"{growth:.2f}",
                        *target_cells(growth, LINEAR_TARGET, False)]])


def exact_sum(section, context, step_seconds):
    context.say("growth: cost of the exact sum")
    local, wire = micro_bench(context, f"gradient_sum/{LORA_PARAMETERS}/"), comm_bench(context, 2)
    extra = {"conversion and sum": middle(local, f"gradient_sum/{LORA_PARAMETERS}/fixed")
             - middle(local, f"gradient_sum/{LORA_PARAMETERS}/float"),
             "all-reduce of 2 ranks": middle(wire, f"all_reduce/{LORA_PARAMETERS}/int64")
             - middle(wire, f"all_reduce/{LORA_PARAMETERS}/float32")}
    total = sum(extra.values()) / step_seconds
    section.data["exact_sum"] = dict(extra_seconds=extra, share_of_step=total)
    section.add(f"The exact sum (int64) beside a float sum, in a step of {1e3 * step_seconds:.0f} ms (8 x 128 {DTYPE}):")
    rows = [[name, f"{1e3 * value:.3f} ms", f"{100 * value / step_seconds:.2f} %", "", ""]
            for name, value in extra.items()]
    cells = [f"<= {100 * EXACT_TARGET:.0f} %", target_cells(total, EXACT_TARGET, False)[1]]
    section.add_table(["extra", "time", "of the step", "target", ""],
                      [*rows, ["both", "", f"{100 * total:.2f} %", *cells]])


def run(context):
    section = Section("Growth")
    section.add(f"GPT-Neo 125M shape, causal LM, {DTYPE}, LoRA r=8 on q_proj and v_proj, {context.threads} threads unless "
                f"said; medians of {context.steps} steps after {context.warmup}, variants in turns.")
    steps = table_of(section, "length, 2048 tokens", context,
                     [(f"{LENGTHS[-1] // length} x {length}", LENGTHS[-1] // length, length, {}) for length in LENGTHS])
    layers(section, context, steps)
    batch = table_of(section, "batch", context, [(f"batch {rows} x 128", rows, 128, {}) for rows in (1, 2, 4, 8, 16)])
    table_of(section, "rank of the adapters, 8 x 128", context,
             [(f"r={rank}", 8, 128, dict(lora_r=rank)) for rank in (4, 8, 16, 64)])
    ranks(section, context)
    exact_sum(section, context, batch["batch 8 x 128"]["seconds"]["median"])
    return section

# SPDX-License-Identifier: Apache-2.0
"""Training steps on the GPU at hand, beside transformers + peft on the same device: tokens a second, TFLOP/s by the 4 N
count and attention's own, memory beside the plan, kernels a step and where their time goes."""

import statistics
from dataclasses import dataclass

from context import NotMeasured
from kernel_times import GROUPS, kernels
from report import Section, spread
from sides import SideFailed, check_losses, hf_side, logged_steps, make_request, neoloom_side

FILLING_TOKENS = 8192  # fewer leave a GPU waiting for launches, more spend their time in kernels
LOGGED, LOSS_TOLERANCE = 10, 0.1  # steps between lines of metrics; relative, of what two sides learn in 16 bits
DTYPE, THREADS = "bfloat16", 4
BLOCKS, BLOCK_SECONDS, MOST_STEPS = 3, 1.0, 50
HF_VARIANTS = ["eager", "best"]  # without --hf


@dataclass(frozen=True)
class Row:
    size: str
    head: str
    rows: int
    length: int
    kernels: bool = False  # also counted and grouped
    device: str = "cuda"
    dtype: str = DTYPE
    block_seconds: float = BLOCK_SECONDS

    @property
    def tokens(self):
        return self.rows * self.length

    @property
    def name(self):
        return f"{self.size} {'causal LM' if self.head == 'causal_lm' else 'classification'} {self.rows} x {self.length}"

    @property
    def flops_per_token(self):
        """Counts 4 N of the frozen weights (forward, and backward to the activations) and 3 times attention's forward."""
        import sizes

        config = sizes.config(self.size)
        layers, width = config["num_layers"], config["hidden_size"]
        frozen = 12 * layers * width**2 + (config["vocab_size"] * width if self.head == "causal_lm" else 0)
        return 4 * frozen + self.attention_flops_per_token

    @property
    def attention_flops_per_token(self):
        import sizes

        config = sizes.config(self.size)
        window = min(config["window_size"], self.length)
        local = (window * (window + 1) / 2 + (self.length - window) * window) / self.length
        return 3 * 4 * config["hidden_size"] * config["num_layers"] / 2 * (local + (self.length + 1) / 2)


ROWS = [
    Row("125M", "single_label", 32, 128),
    Row("125M", "causal_lm", 8, 128, kernels=True),
    Row("125M", "causal_lm", 16, 1024, kernels=True),
    Row("1.3B", "causal_lm", 8, 1024, kernels=True),
    Row("2.7B", "causal_lm", 4, 1024),
]


def ceilings():
    """Returns medians: TFLOP/s of a bf16 GEMM and TB/s of a copy on this device."""
    import torch

    def seconds(work):
        times = []
        for _ in range(8):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e-3)
        return statistics.median(times[3:])

    side = 8192
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(1 << 30, device="cuda", dtype=torch.bfloat16)
    target = torch.empty_like(source)
    found = dict(gemm_tflops=2 * side**3 / seconds(lambda: a @ b) * 1e-12,
                 copy_tb_per_s=2 * source.nbytes / seconds(lambda: target.copy_(source)) * 1e-12,
                 device=torch.cuda.get_device_name(), memory_gib=torch.cuda.mem_get_info()[1] / 2**30,
                 cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(),
                 nccl=".".join(map(str, torch.cuda.nccl.version())))
    del a, b, source, target
    torch.cuda.empty_cache()
    return found


def timed(side, context, block_seconds=BLOCK_SECONDS):
    """Returns the seconds of a step over blocks of steps, after the warm-up, and what the side says at its end."""
    side.ask(f"step {context.device_warmup}")
    once = side.ask("step 2")["seconds"] / 2
    count = max(2, min(MOST_STEPS, int(block_seconds / once)))
    blocks = [side.ask(f"step {count}")["seconds"] / count for _ in range(BLOCKS)]
    return dict(seconds=spread(blocks), steps=count, **side.end())


def fields_of(context, row):
    """Returns the fields of a request that all sides share."""
    return dict(model=str(context.model(row.size, row.dtype)), head=row.head, frozen=row.dtype, compute=row.dtype,
                rows=row.rows, length=row.length, threads=THREADS, device=row.device, logging_steps=LOGGED)


def with_rates(row, found):
    rate = row.tokens / found["seconds"]["median"]
    return found | dict(tokens_per_s=rate, tflops=rate * row.flops_per_token * 1e-12)


def hf_sides(context, row, variants):
    """Yields (name, what was measured) of each variant as soon as it is known."""
    for variant in variants:
        request = make_request(context.work, f"{row.name} {variant}", variant=variant, **fields_of(context, row))
        context.say(f"device: {row.name}, HF {variant}")
        yield f"HF {variant}", with_rates(row, timed(hf_side(request), context, row.block_seconds))


def neoloom_result(context, row, name, build, changes):
    """Returns what was measured, with the mean losses of the first steps, LOGGED at a time."""
    request = make_request(context.work, f"{row.name} {name}", **fields_of(context, row), **changes)
    context.say(f"device: {row.name}, {name}")
    found = timed(neoloom_side(build, request), context, row.block_seconds)
    logged = logged_steps(request)
    return with_rates(row, found) | dict(
        losses=[step["loss"] for step in logged[:2]],
        exposed_share=statistics.median(step["devices"][0]["exposed_sum_share"] for step in logged[1:] or logged),
        log=(request.parent / "stderr.txt").read_text()[-2000:])


def compare_losses(row, ours, result):
    """Compares neoloom's mean losses with those of every HF side."""
    for name, found in result.items():
        if name.startswith("HF"):
            losses = found["extra"]["losses"]
            theirs = [statistics.mean(losses[begin : begin + LOGGED]) for begin in (0, LOGGED)]
            check_losses(f"{row.name}, {name}", ours["losses"], theirs, LOSS_TOLERANCE)


def neoloom_sides(context, row):
    sides = [("neoloom", context.build, {})]
    if row.tokens < FILLING_TOKENS:
        sides.append(("neoloom, no graphs", context.build, dict(cuda_graphs=False)))
    else:
        sides.append(("neoloom, not deterministic", context.build, dict(deterministic=False)))
    if context.before:
        sides.append(("neoloom before", context.before, {}))
    return sides


def kernels_of(context, row):
    context.say(f"device: {row.name}, kernels")
    request = make_request(context.work, f"{row.name} kernels", **fields_of(context, row))
    return kernels(lambda **variables: neoloom_side(context.build, request, **variables), request, context)


def measure(context, row):
    result = dict(hf_sides(context, row, context.hf or HF_VARIANTS))
    for name, build, changes in neoloom_sides(context, row):
        result[name] = neoloom_result(context, row, name, build, changes)
        compare_losses(row, result[name], result)
    if row.kernels:
        result["neoloom"]["kernels"] = kernels_of(context, row)
        if "HF best" in result and row.size == "125M":
            request = make_request(context.work, f"{row.name} best kernels", variant="best", **fields_of(context, row))
            result["HF best"]["kernels"] = kernels(lambda **variables: hf_side(request, **variables), request, context)
    return result


def cells(name, found, best, limits):
    seconds = found["seconds"]
    peak = found["device_peak_bytes"]
    planned = f"{peak / found['device_planned_bytes']:.2f}" if "device_planned_bytes" in found else ""
    exposed = f"{1e3 * found['exposed_share'] * seconds['median']:.2f}" if "exposed_share" in found else ""
    runs = f"{found['kernels']['runs']:.0f}" if "kernels" in found else ""
    return [name, f"{found['tokens_per_s']:,.0f}", f"{1e3 * seconds['median']:.2f} ({1e3 * seconds['max']:.2f})",
            f"{best['seconds']['median'] / seconds['median']:.2f}" if best else "", f"{found['tflops']:.0f}",
            f"{100 * found['tflops'] / limits['gemm_tflops']:.0f} %", f"{peak / 2**30:.2f}", planned, exposed, runs]


def kernel_table(section, row, result):
    sides = {name: found["kernels"] for name, found in result.items() if "kernels" in found}
    if not sides:
        return
    rows = []
    for group, _ in GROUPS:
        line = [group]
        for found in sides.values():
            line += [f"{1e3 * found['groups'][group]['seconds']:.2f}", f"{found['groups'][group]['runs']:.0f}"]
        rows.append(line)
    for label, key in (("no kernel runs", "idle_seconds"), ("a step", "step_seconds")):
        line = [label]
        for found in sides.values():
            line += [f"{1e3 * found[key]:.2f}", f"{found['runs']:.0f}" if key == "step_seconds" else ""]
        rows.append(line)
    section.add_table([row.name, *(cell for name in sides for cell in (f"{name}: ms", "kernels"))], rows)


def run(context):
    try:
        limits = ceilings()
    except (AssertionError, RuntimeError) as error:
        raise NotMeasured(f"not measured: {error}") from error
    section = Section("Device")
    section.data["ceilings"] = limits
    section.add(f"{limits['device']}, {limits['memory_gib']:.0f} GiB, CUDA {limits['cuda']}, cuDNN {limits['cudnn']}, NCCL "
                f"{limits['nccl']}. Measured here: a bf16 GEMM of 8192 x 8192 x 8192 {limits['gemm_tflops']:.0f} "
                f"TFLOP/s, a copy {limits['copy_tb_per_s']:.2f} TB/s.")
    section.add(f"{DTYPE} weights and GEMMs, LoRA r=8 on q_proj and v_proj, random weights and tokens, no padding, one "
                f"GPU; forward, backward, clipping, AdamW, and in neoloom the exact sum, NCCL's all-reduce of one rank and a "
                f"line of metrics every 10 steps. Medians (largest) of {BLOCKS} blocks of up to {MOST_STEPS} steps after "
                f"{context.device_warmup}. HF: attention eager (its flash path ignores the local window); best: TF32 "
                f"for fp32 GEMMs and fused AdamW. TFLOP/s by 4 N and attention as masked.")
    header = ["side", "tokens/s", "ms a step", "over the fastest HF", "TFLOP/s", "of the GEMM", "peak GiB",
              "peak over plan", "ms waiting for sums", "kernels a step"]
    for row in context.chosen(ROWS):
        try:
            result = section.data[row.name] = measure(context, row)
        except SideFailed as failure:  # keeps the other rows, which took minutes
            section.failed = True
            section.add(f"**{row.name}** FAILED\n\n```\n{failure}\n```")
            continue
        theirs = [found for name, found in result.items() if name.startswith("HF")]
        best = min(theirs, key=lambda found: found["seconds"]["median"]) if theirs else None
        section.add(f"**{row.name}**")
        section.add_table(header, [cells(name, found, best, limits) for name, found in result.items()])
        kernel_table(section, row, result)
    return section

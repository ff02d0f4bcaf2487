# SPDX-License-Identifier: Apache-2.0
"""Side by side with transformers + peft: tokens per second and peak memory of a training step, one Markdown table.

    NEOLOOM_BUILD_DIR=build python3 tests/bench/compare_hf.py [--size 125M] [--steps 5] [--rows "seq_cls fp32" ...]

Both sides run in processes of their own with the same weights, batch and threads, and take turns step by step, so that
other load on the machine meets both alike. Only ratios of one run mean anything.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent.parent / "support"
sys.path.insert(0, str(SUPPORT))
BENCH = Path(os.environ.get("NEOLOOM_BUILD_DIR", "build")) / "step_bench"
ROWS = {
    "seq_cls fp32": ("single_label", "float32", 8, 128),
    "seq_cls bf16": ("single_label", "bfloat16", 8, 128),
    "seq_cls fp16": ("single_label", "float16", 8, 128),
    "causal_lm fp32": ("causal_lm", "float32", 8, 128),
    "causal_lm bf16": ("causal_lm", "bfloat16", 8, 128),
    "causal_lm fp32 2 x 1024": ("causal_lm", "float32", 2, 1024),
}
DEFAULT_ROWS = ["seq_cls fp32", "seq_cls bf16", "causal_lm fp32", "causal_lm bf16"]


def serve_transformers(request):
    """The other side: the same protocol as step_bench, spoken by transformers + peft."""
    import time

    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.set_num_threads(request["threads"])
    causal = request["head"] == "causal_lm"
    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    extra = {} if causal else dict(num_labels=2, pad_token_id=0)
    model = kind.from_pretrained(
        request["model"], dtype=getattr(torch, request["compute"]), attn_implementation="eager", **extra
    )
    model.config.use_cache = False
    task = "CAUSAL_LM" if causal else "SEQ_CLS"
    model = peft.get_peft_model(
        model, peft.LoraConfig(task_type=task, r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    ).train()
    ids = torch.randint(1, model.config.vocab_size, (request["rows"], request["length"]))
    labels = ids if causal else torch.arange(request["rows"]) % 2
    mask = torch.ones_like(ids)
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() != "step":
            break
        begin, cpu_begin = time.perf_counter(), time.process_time()
        model.zero_grad()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        print(json.dumps(dict(seconds=seconds, cpu_seconds=cpu_seconds, loss=loss.item())), flush=True)
    status = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) for line in status if line.startswith(("VmHWM", "RssAnon"))}
    print(json.dumps(dict(peak_kib=found["VmHWM"], private_kib=found["RssAnon"])), flush=True)


class Side:
    def __init__(self, command, threads):
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
        )
        line = self.process.stdout.readline()
        assert line.strip() == "ready", f"{command[0]}: {line or 'ended early'}"

    def ask(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        answer = self.ask("end")
        self.process.stdin.close()
        self.process.wait()
        return answer


def measure(name, folder, cache, steps, threads, clock):
    head, dtype, rows, length = ROWS[name]
    request = dict(
        model=str(folder), cache=str(cache), head=head, frozen=dtype, compute=dtype, rows=rows, length=length,
        threads=threads,
    )
    path = cache / "request.json"
    path.write_text(json.dumps(request))
    ours = Side([str(BENCH), str(path)], threads)
    theirs = Side([sys.executable, __file__, "--serve", str(path)], threads)
    times = {"ours": [], "theirs": []}
    for step in range(steps + 1):
        for label, side in (("ours", ours), ("theirs", theirs)):
            seconds = side.ask("step")[clock]
            if step > 0:  # the first warms up
                times[label].append(seconds)
    memory = {"ours": ours.end(), "theirs": theirs.end()}
    tokens = rows * length
    speed = {label: tokens / statistics.median(values) for label, values in times.items()}
    peak = {label: value["peak_kib"] / 1024**2 for label, value in memory.items()}
    return (
        f"| {name} {rows} x {length} | {speed['ours']:.0f} | {speed['theirs']:.0f} | "
        f"{speed['ours'] / speed['theirs']:.2f} | {peak['ours']:.2f} | {peak['theirs']:.2f} | "
        f"{peak['ours'] / peak['theirs']:.2f} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--size", default="125M")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu_time", action="store_true", help="count processor seconds: for --threads 1 on a busy machine")
    parser.add_argument("--rows", nargs="*", default=DEFAULT_ROWS, choices=list(ROWS))
    parser.add_argument("--cache", help="folder for the random model; kept (default: a temporary one)")
    arguments = parser.parse_args()
    if arguments.serve:
        serve_transformers(json.loads(Path(arguments.serve).read_text()))
        return
    import sizes

    with tempfile.TemporaryDirectory() as temporary:
        cache = Path(arguments.cache or temporary)
        cache.mkdir(parents=True, exist_ok=True)
        folder = sizes.make_model_folder(cache / arguments.size, arguments.size, dtype="float32")
        print(f"GPT-Neo {arguments.size} shape, LoRA r=8 on q_proj and v_proj, {arguments.threads} threads, "
              f"median of {arguments.steps} steps\n")
        print("| task, dtype, batch | neoloom tok/s | HF + PEFT tok/s | ratio | neoloom GiB | HF + PEFT GiB | ratio |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name in arguments.rows:
            clock = "cpu_seconds" if arguments.cpu_time else "seconds"
            print(measure(name, folder, cache, arguments.steps, arguments.threads, clock), flush=True)


if __name__ == "__main__":
    main()

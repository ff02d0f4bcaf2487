# SPDX-License-Identifier: Apache-2.0
"""Answers the protocol and request of step_bench with transformers + peft + torch.optim.AdamW.

`variant` says how: eager; best (TF32 for fp32 GEMMs, fused AdamW); and beyond that autocast (to bfloat16,
the adapters' GEMMs too) or compiled (torch.compile). The host reads no loss while steps run, which is kinder than
HF Trainer.
"""

import importlib.metadata
import json
import sys
import time
from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification


def open_model(request):
    causal = request["head"] == "causal_lm"
    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    extra = {} if causal else dict(num_labels=2, pad_token_id=0)
    model = kind.from_pretrained(request["model"], dtype=getattr(torch, request["frozen"]),
                                 attn_implementation="eager", **extra)
    model.config.use_cache = False
    model = peft.PeftModel.from_pretrained(model, request["start"], is_trainable=True)
    return model.train().to(request.get("device", "cpu"))


def status_kib(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def wait_for(device):
    if device == "cuda":
        torch.cuda.synchronize()


def main():
    request = json.loads(Path(sys.argv[1]).read_text())
    device, variant = request.get("device", "cpu"), request.get("variant", "eager")
    torch.set_num_threads(request["threads"])
    torch.backends.cuda.matmul.allow_tf32 = variant != "eager"
    model = open_model(request)
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=request["learning_rate"], weight_decay=0.0,
                                  fused=True if variant != "eager" else None)
    forward = torch.compile(model) if variant == "compiled" else model
    ids = torch.tensor(request["ids"]).to(device)
    labels = ids if request["head"] == "causal_lm" else torch.arange(len(ids)).to(device) % 2
    mask = torch.ones_like(ids)
    losses = []

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=variant == "autocast"):
            loss = forward(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())

    print("ready", flush=True)
    for line in sys.stdin:
        word, _, count = line.strip().partition(" ")
        if word != "step":
            break
        begin, cpu_begin = time.perf_counter(), time.process_time()
        for _ in range(int(count)):
            step()
        wait_for(device)
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        print(json.dumps(dict(seconds=seconds, cpu_seconds=cpu_seconds)), flush=True)
    mapped = status_kib("RssFile") + status_kib("RssShmem")
    found = dict(peak_kib=status_kib("VmHWM"), mapped_kib=mapped, extra=dict(
        losses=[loss.item() for loss in losses],
        versions={name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")}))
    if device == "cuda":
        found["device_peak_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""The other side of step_bench: the same protocol and request, answered by transformers + peft + torch.optim.AdamW."""

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
    lora = peft.LoraConfig(task_type="CAUSAL_LM" if causal else "SEQ_CLS", r=request["lora_r"], lora_alpha=16,
                           target_modules=["q_proj", "v_proj"])
    return peft.get_peft_model(model, lora).train()


def status_kib(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def main():
    request = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(request["threads"])
    model = open_model(request)
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-5)
    ids = torch.tensor(request["ids"])
    labels = ids if request["head"] == "causal_lm" else torch.arange(len(ids)) % 2
    mask = torch.ones_like(ids)
    losses = []
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() != "step":
            break
        begin, cpu_begin = time.perf_counter(), time.process_time()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        print(json.dumps(dict(seconds=seconds, cpu_seconds=cpu_seconds)), flush=True)
    mapped = status_kib("RssFile") + status_kib("RssShmem")
    print(json.dumps(dict(peak_kib=status_kib("VmHWM"), mapped_kib=mapped, extra=dict(losses=losses))), flush=True)


if __name__ == "__main__":
    main()

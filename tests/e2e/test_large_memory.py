# SPDX-License-Identifier: Apache-2.0
"""The plan of models with the shapes of 125M and 1.3B, and random weights, against what they take.

The file takes minutes, so ctest runs it with `-C nightly` alone, as `bash tests/run.sh --nightly` does.
"""

import json
import random
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import tiny_model
from common import SOURCE, Run, make_config, merged, neoloom

SHAPES = {"125M": {"hidden_size": 768, "num_layers": 12, "num_heads": 12},
          "1.3B": {"hidden_size": 2048, "num_layers": 24, "num_heads": 16}}
GIBIBYTES = {"125M": 4, "1.3B": 16}  # that must be available
LARGE = [("125M", "classification", "float32", 8, 128), ("125M", "causal_lm", "float32", 8, 128),
         ("125M", "classification", "bfloat16", 8, 128), ("125M", "causal_lm", "bfloat16", 8, 128),
         ("125M", "causal_lm", "bfloat16", 2, 1024), ("1.3B", "causal_lm", "bfloat16", 2, 128)]


@pytest.fixture(scope="module")
def large():
    """Returns a function: shape, dtype -> folder of a model. Beside the folders is a library that counts bytes of tensors."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", f"{name}/tensor_bytes.so",
                        SOURCE / "tests/support/tensor_bytes.c", "-lpthread"], check=True)

        def model(shape, dtype):
            available = int(re.search(r"MemAvailable: *(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
            if available < GIBIBYTES[shape]:
                pytest.skip(f"{shape} needs {GIBIBYTES[shape]} GiB, {available:.1f} are available")
            folder = Path(name) / f"{shape}-{dtype}"
            if not folder.exists():
                tiny_model.make_model_folder(folder, std=0.02, dtype=dtype, vocab_size=50257, max_position_embeddings=2048,
                                             window_size=256, **SHAPES[shape])
            return folder

        yield model


def megabytes(printed, pattern):
    number, unit = re.search(pattern + r" *([\d.]+) ([MG]B)", printed).groups()
    return float(number) * {"MB": 1, "GB": 1000}[unit]


@pytest.mark.parametrize("shape, kind, dtype, rows, length", LARGE, ids=lambda value: str(value))
def test_the_plan_of_a_large_model_is_what_it_takes(tmp_path, large, shape, kind, dtype, rows, length):
    base = large(shape, dtype if shape == "1.3B" else "float32")
    words = random.Random(1)
    texts = [" ".join(words.choices(tiny_model.WORDS, k=length)) for _ in range(3 * rows)]
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({"text": text, "label": "ab"[i % 2]}) + "\n" for i, text in enumerate(texts)))
    config = merged(make_config(kind, tmp_path, base.parent / "cache", dtype), {
        "model_config": {"pretrained_model_name": str(base)}, "tokenizer_config": {"max_length": length},
        "peft_config": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
        "trainer_config": {"per_device_train_batch_size": rows, "max_steps": 3, "eval_strategy": "no", "save_strategy": "no"},
        "runtime": {"global_batch_size": rows, "memory_budget": "30GB"}})
    del config["data"]["validation"]
    if kind == "causal_lm":
        config["data"]["pack"] = "none"
    run = Run(tmp_path / "run", config)
    neoloom(0, "prepare", "--config", run.config_file, timeout=900).expect(0)  # caches are no part of the plan
    planned = neoloom(0, "plan", "--config", run.config_file).expect(0).out
    counter = base.parent / "tensor_bytes.so"
    run.train(0, timeout=900, LD_PRELOAD=counter, TENSOR_BYTES=tmp_path / "bytes").expect(0)

    [file] = tmp_path.glob("bytes.*")
    tensors = int(file.read_text()) / 1e6
    process = max(event["devices"][0]["peak_memory_bytes"] for event in run.events("train")) / 1e6
    of_tensors = megabytes(planned, "training state") + megabytes(planned, "micro-step") + megabytes(planned, "once per node, and")
    of_process = megabytes(planned, "memory of a rank")
    print(f"{shape} {kind} {dtype} {rows} x {length}: tensors {tensors:.1f} MB, planned {of_tensors:.1f} MB; "
          f"process {process:.0f} MB, planned {of_process:.0f} MB")
    assert tensors == pytest.approx(of_tensors, rel=0.1)
    assert process == pytest.approx(of_process, rel=0.15)

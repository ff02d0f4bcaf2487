# SPDX-License-Identifier: Apache-2.0
"""--checkpoint: a command takes the state of a checkpoint as the result that the run would have written at that step."""

import json
import shutil
import signal

import common
import pytest
import torch
from peft import PeftModel
from runs import QUICK, adapter, assert_equal, assert_one_message, command, json_lines, padded, train
from safetensors.numpy import load_file
from test_interop import EXACT, all_logits, assert_single_label, classifier_of
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
USAGE, CHECKPOINT = 2, 5
STEPS, AT = 6, 4
LORA = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "c_fc"]}
KINDS = {
    "lora": ("classification", LORA),
    "dora": ("classification", {**LORA, "use_dora": True}),
    "bias": ("causal_lm", {**LORA, "bias": "all"}),
    "modules_to_save": ("causal_lm", {**LORA, "modules_to_save": ["ln_f"]}),
    "pissa": ("causal_lm", {**LORA, "init_lora_weights": "pissa"}),
    "olora": ("classification", {**LORA, "init_lora_weights": "olora"}),
    "full": ("causal_lm", None),
    "full_classifier": ("classification", None),
}


def config_of(kind, data, cache, steps):
    head, lora = KINDS[kind]
    config = common.make_config(head, data, cache)
    # A schedule that does not look at the end, so that a shorter run takes the same steps.
    config["trainer_config"].update(max_steps=steps, lr_scheduler_type="constant_with_warmup", save_strategy="steps",
                                    learning_rate=1e-2 if lora else 1e-3, eval_steps=2)
    del config["peft_config"]
    if lora:
        config["peft_config"] = {"task_type": "SEQ_CLS" if head == "classification" else "CAUSAL_LM", **lora}
    return config


def trained(folder, config, cache):
    run = common.Run(folder, common.merged({"logging": QUICK["logging"]}, config))
    run.train(0).expect(0)
    return run


@pytest.fixture(scope="module")
def runs(data, cache, tmp_path_factory):
    """Makes, of a kind, a run of six steps and one that ends at the fourth."""
    made = {}

    def both(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = [trained(folder / name, config_of(kind, data, cache, steps), cache)
                          for name, steps in (("long", STEPS), ("short", AT))]
        return made[kind]

    return both


def without_clock(text):
    return {key: value for key, value in json.loads(text).items() if key not in common.CLOCK_KEYS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_is_the_result_of_a_run_that_ended_there(kind, runs, data, cache, tmp_path):
    long, short = runs(kind)
    evaluate = ("evaluate", "--run")
    expected = without_clock(command(cache, *evaluate, short.folder))
    assert without_clock(command(cache, *evaluate, long.folder, "--checkpoint", AT)) == expected
    assert without_clock(command(cache, *evaluate, long.folder)) != expected
    merged = ("export", "--format", "merged", "--run")
    command(cache, *merged, long.folder, "--checkpoint", AT, "--output", tmp_path / "merged")
    command(cache, *merged, short.folder, "--output", tmp_path / "expected")
    assert_equal(load_file(tmp_path / "merged/model.safetensors"), load_file(tmp_path / "expected/model.safetensors"))
    if KINDS[kind][1]:
        command(cache, "export", "--run", long.folder, "--checkpoint", AT, "--output", tmp_path / "adapter")
        assert_equal(adapter(tmp_path / "adapter"), adapter(short.folder / "adapter"))
        for name in ("adapter_config.json", "config.json", "tokenizer.json"):
            assert (tmp_path / "adapter" / name).read_bytes() == (short.folder / "adapter" / name).read_bytes()
        assert "after step 4" in (tmp_path / "adapter/README.md").read_text()
    else:
        assert_equal(load_file(tmp_path / "merged/model.safetensors"), load_file(short.folder / "model/model.safetensors"))
        assert str(cache) not in (tmp_path / "merged/README.md").read_text()
    if KINDS[kind][0] == "classification":
        predict = ("predict", "--input", data / "validation.jsonl", "--run")
        assert command(cache, *predict, long.folder, "--checkpoint", AT) == command(cache, *predict, short.folder)
    else:
        generate = ("generate", "--prompt", "free cash", "--max_tokens", 8, "--seed", 3, "--json", "--run")
        assert command(cache, *generate, long.folder, "--checkpoint", AT) == command(cache, *generate, short.folder)
    assert not list(cache.glob(".checkpoint*")), "the folder that it was read from stays behind"


@pytest.mark.parametrize("kind", ("lora", "dora", "olora"))
def test_peft_computes_the_logits_of_an_exported_checkpoint(kind, runs, data, cache, tmp_path):
    long, _ = runs(kind)
    command(cache, "export", "--run", long.folder, "--checkpoint", 2, "--output", tmp_path / "adapter")
    predictions = json_lines(command(cache, "predict", "--run", long.folder, "--checkpoint", 2, "--input",
                                     data / "validation.jsonl"))
    model = classifier_of(tmp_path / "adapter", data / "base")
    names = [model.config.id2label[i] for i in range(3)]
    lines = [row["text"] for row in json_lines((data / "validation.jsonl").read_text())]
    assert_single_label(predictions, all_logits(model, AutoTokenizer.from_pretrained(tmp_path / "adapter"), lines), names)


@pytest.mark.parametrize("kind", ("bias", "modules_to_save", "pissa"))
def test_peft_computes_the_loss_of_an_exported_checkpoint(kind, runs, data, cache, tmp_path):
    long, _ = runs(kind)
    command(cache, "export", "--run", long.folder, "--checkpoint", "last", "--output", tmp_path / "adapter")
    found = json.loads(command(cache, "evaluate", "--run", long.folder, "--checkpoint", "last"))
    base = AutoModelForCausalLM.from_pretrained(data / "base", **EXACT)
    model = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    ids = [tokenizer(row["text"]).input_ids + [tokenizer.eos_token_id]
           for row in json_lines((data / "validation.jsonl").read_text())]
    batch = padded(ids, tokenizer.eos_token_id)
    with torch.no_grad():
        loss = model(**batch, labels=batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)).loss
    assert found["eval_loss"] == pytest.approx(loss.item(), abs=1e-5)


def test_an_unfinished_run_has_checkpoints_and_ranks_share_them(runs, data, cache, tmp_path):
    _, short = runs("lora")
    config = config_of("lora", data, cache, steps=400)
    run = common.Run(tmp_path / "unfinished", common.merged({"logging": QUICK["logging"]}, config))
    process = run.start(0)
    assert common.wait_until(lambda: len(run.checkpoints()) >= 2, process)
    process.send_signal(signal.SIGSTOP)  # it goes on while others read
    try:
        assert_one_message(common.neoloom(0, "evaluate", "--run", run.folder).expect(USAGE), "--checkpoint last")
        expected = without_clock(command(cache, "evaluate", "--run", short.folder))
        for ranks in (0, 2):
            found = command(cache, "evaluate", "--run", run.folder, "--checkpoint", AT, ranks=ranks)
            assert without_clock(found) == expected
        newest = run.checkpoints()[-1]
        out = common.neoloom(0, "evaluate", "--run", run.folder, "--checkpoint", "last").expect(0)
        assert f"checkpoint of step {int(newest.stem[5:])}" in out.err
    finally:
        process.send_signal(signal.SIGCONT)
        common.end(process)
        process.communicate()


def test_a_checkpoint_that_is_not_there_or_damaged_is_named(runs, data, cache, tmp_path):
    long, short = runs("lora")
    evaluate = ("evaluate", "--run", long.folder, "--checkpoint")
    assert_one_message(common.neoloom(0, *evaluate, 3).expect(USAGE), "step", "2, 4, 6")
    assert_one_message(common.neoloom(0, *evaluate, "newest").expect(USAGE), "newest", "last", "2, 4, 6")
    assert_one_message(common.neoloom(0, "evaluate", "--model", data / "base", "--checkpoint", 2).expect(USAGE), "--run")
    assert_one_message(common.neoloom(0, "evaluate", "--run", data, "--checkpoint", 2).expect(USAGE), "config.yaml")
    # The file of another run: equal tensors are taken, others are refused.
    other, _ = runs("dora")
    file = other.checkpoints()[0]
    assert_one_message(common.neoloom(0, *evaluate, file).expect(CHECKPOINT), file, "another run")
    same = without_clock(command(cache, *evaluate, short.checkpoints()[-1]))
    assert same == without_clock(command(cache, "evaluate", "--run", short.folder))
    # Damaged ones.
    config = config_of("lora", data, cache, STEPS)
    run = trained(tmp_path / "damaged", config, cache)
    newest = run.checkpoints()[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    for ranks in (0, 2):
        refused = common.neoloom(ranks, "evaluate", "--run", run.folder, "--checkpoint", STEPS).expect(CHECKPOINT)
        assert_one_message(refused, newest)
    passed = common.neoloom(0, "evaluate", "--run", run.folder, "--checkpoint", "last").expect(0)
    assert f"{newest} is damaged" in passed.err and "checkpoint of step 4" in passed.err
    shutil.rmtree(run.folder / "checkpoints")
    assert_one_message(common.neoloom(0, "evaluate", "--run", run.folder, "--checkpoint", "last").expect(USAGE), "none")


def test_several_runs_each_at_the_step(runs, data, cache):
    long, short = runs("lora")
    both = ("--run", f"a={long.folder}", "--run", f"b={short.folder}", "--checkpoint", AT)
    found = json.loads(command(cache, "evaluate", *both))
    assert {key: value for key, value in found["a"].items() if key not in common.CLOCK_KEYS} == {
        key: value for key, value in found["b"].items() if key not in common.CLOCK_KEYS}


def test_a_new_model_has_no_base_to_start_from(data, cache, tmp_path):
    config = common.make_config("causal_lm", data, cache)
    config["model_config"] = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 64}
    config["tokenizer_config"]["pretrained_tokenizer_name"] = str(data / "base")
    del config["peft_config"]
    config["trainer_config"] = {"max_steps": 2, "save_steps": 2, "per_device_train_batch_size": 2}
    run = trained(tmp_path / "new", config, cache)
    evaluate = ("evaluate", "--run", run.folder)
    assert without_clock(command(cache, *evaluate, "--checkpoint", 2)) == without_clock(command(cache, *evaluate))

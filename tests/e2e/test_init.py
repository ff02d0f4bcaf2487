# SPDX-License-Identifier: Apache-2.0
"""neoloom init: a data file, or the files of a Hugging Face script, become a configuration that runs as it is."""

import csv
import gzip
import io
import json
import os
import random
import re
import shutil
import subprocess

import common
import numpy as np
import pytest
import tiny_model
import yaml
from peft import LoraConfig
from transformers import AutoTokenizer, TrainingArguments

TEXTS = tiny_model.sample_texts(120, seed=3)
LABELS = [("spam", "ham", "other")[i * 7 % 3] for i in range(len(TEXTS))]
PAIRS = list(zip(TEXTS, LABELS))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("model") / "base", max_position_embeddings=128)


def as_csv(rows, header=None, **options):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", **options)
    writer.writerows([header] * (header is not None) + [list(row) for row in rows])
    return out.getvalue().encode()


def as_jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def run(folder, *arguments, code=0):
    was = os.getcwd()
    os.chdir(folder)
    try:
        return common.neoloom(0, *arguments).expect(code)
    finally:
        os.chdir(was)


def init(folder, base, name, content, *arguments):
    """Writes the data, begins with it, and plans what was written, twice. Returns the configuration and the report."""
    (folder / name).write_bytes(content)
    out = run(folder, "init", name, "--model", base, *arguments).out
    cache = f"runtime.cache_dir={folder}/cache"
    run(folder, "plan", "--config", "run.yaml", "--set", cache)
    run(folder, "train", "--config", "run.yaml", "--dry-run", "--set", cache)
    return yaml.safe_load((folder / "run.yaml").read_text()), out


PLAIN = {"text_column": "text", "label_column": "label"}
SMS = {"header": False, "text_column": "1", "label_column": "0"}
ALPACA = [{"instruction": "Repeat", "input": text, "output": text} if i % 2 else {"instruction": "Say it", "output": text}
          for i, text in enumerate(TEXTS)]
NEAR = [{"sentence1": a, "sentence2": b, "score": round(random.Random(i).random() * 5, 2)}
        for i, (a, b) in enumerate(zip(TEXTS, TEXTS[1:]))]


def chats(*roles, column="messages", role="role", content="content"):
    """Rows of chats: each role in turn."""
    return [{column: [{role: name, content: f"{name} {text}"} for name in roles], "source": "web"} for text in TEXTS]


TOOL_FORM = ("{?system}### System:\n{system}\n\n{/system}{?user}### User:\n{user}\n\n{/user}"
             "{?assistant}### Assistant:\n{assistant}\n\n{/assistant}{?tool}### Tool:\n{tool}\n\n{/tool}")
TAGS = [("sport", "news"), ("news",), ("sport", "weather", "news"), ()]
CASES = {
    "comma.csv": (as_csv(PAIRS, ("text", "label")), "single", PLAIN),
    "tabs.tsv": (as_csv(PAIRS, ("text", "label"), delimiter="\t"), "single", PLAIN),
    "semicolons.csv": (as_csv([(i, t + ", well", l) for i, (t, l) in enumerate(PAIRS)], ("id", "review", "sentiment"),
                              delimiter=";"), "single",
                       {"text_column": "review", "label_column": "sentiment", "delimiter": ";"}),
    "latin.csv": (as_csv([("déjà " + t.encode("ascii", "ignore").decode(), l) for t, l in PAIRS],
                         ("text", "label")).decode().encode("latin-1"), "single", {**PLAIN, "encoding": "latin-1"}),
    "windows.csv": (as_csv([("“well” " + t.encode("ascii", "ignore").decode(), l) for t, l in PAIRS],
                           ("text", "label")).decode().encode("cp1252"), "single", {**PLAIN, "encoding": "cp1252"}),
    "no_header.tsv": (as_csv([(l, t) for t, l in PAIRS], delimiter="\t"), "single", SMS),
    "SMSSpamCollection": (as_csv([(l, t) for t, l in PAIRS], delimiter="\t"), "single",
                          {**SMS, "format": "csv", "delimiter": "\t"}),
    "quotes.csv": ("text,label\n".encode() + "".join(f'say "{t.replace(",", "")},{l}\n' for t, l in PAIRS).encode(),
                   "single", PLAIN),
    "rows.jsonl": (as_jsonl({"text": t, "label": l} for t, l in PAIRS), "single", PLAIN),
    "classes.json": (json.dumps([{"content": t, "category": i % 4} for i, t in enumerate(TEXTS)]).encode(), "single",
                     {"text_column": "content", "label_column": "category"}),
    "tweets.jsonl": (as_jsonl({"tweet_id": i, "tweet": t, "airline_sentiment": l, "airline_sentiment_confidence": 0.5}
                              for i, (t, l) in enumerate(PAIRS)), "single",
                     {"text_column": "tweet", "label_column": "airline_sentiment"}),
    "nli.jsonl": (as_jsonl({"premise": t, "hypothesis": t[::-1], "label": i % 3} for i, t in enumerate(TEXTS)), "single",
                  {"text_column": "premise", "text_pair_column": "hypothesis", "label_column": "label"}),
    "qa.jsonl": (as_jsonl({"question": t, "answer": t[::-1], "label": i % 2} for i, t in enumerate(TEXTS)), "single",
                 {"text_column": "question", "text_pair_column": "answer", "label_column": "label"}),
    "lists.jsonl": (as_jsonl({"text": t, "labels": TAGS[i % 4]} for i, t in enumerate(TEXTS)), "multi",
                    {"text_column": "text", "labels_column": "labels"}),
    "joined.csv": (as_csv([(t, ";".join(TAGS[i % 4])) for i, t in enumerate(TEXTS)], ("text", "tags")), "multi",
                   {"text_column": "text", "labels_column": "tags", "labels_separator": ";"}),
    "near.jsonl": (as_jsonl(NEAR), "regression",
                   {"text_column": "sentence1", "text_pair_column": "sentence2", "label_column": "score"}),
    "stars.csv": (as_csv([(t, i % 9 + 0.5) for i, t in enumerate(TEXTS)], ("text", "target")), "regression",
                  {"text_column": "text", "label_column": "target"}),
    "chat.jsonl": (as_jsonl({"prompt": t, "response": t[::-1]} for t in TEXTS), "causal_lm",
                   {"prompt_column": "prompt", "response_column": "response", "template": "newline"}),
    "trl.jsonl": (as_jsonl({"prompt": t, "completion": " " + t[::-1]} for t in TEXTS), "causal_lm",
                  {"prompt_column": "prompt", "response_column": "completion", "template": "joined"}),
    "alpaca.json": (json.dumps(ALPACA).encode(), "causal_lm", {"template": "alpaca"}),
    "talks.jsonl": (as_jsonl(chats("system", "user", "assistant")), "causal_lm", {"messages_column": "messages"}),
    "talks.json": (json.dumps(chats("user", "assistant", column="conversation")).encode(), "causal_lm",
                   {"messages_column": "conversation"}),
    "tools.jsonl.gz": (gzip.compress(as_jsonl(chats("user", "assistant", "tool", "assistant"))), "causal_lm",
                       {"messages_column": "messages", "template": TOOL_FORM}),
    "texts.jsonl": (as_jsonl({"text": t, "source": "web"} for t in TEXTS), "causal_lm", {"text_column": "text"}),
    "book.txt": ("\n".join(TEXTS * 8).encode(), "causal_lm", {}),
    "packed.csv.gz": (gzip.compress(as_csv(PAIRS, ("text", "label"))), "single", PLAIN),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_becomes_a_configuration_that_can_be_planned(name, tmp_path, base):
    content, task, columns = CASES[name]
    config, report = init(tmp_path, base, name, content)
    data = dict(config["data"])
    assert data.pop("train") == name and data.pop("validation_split") == 0.1
    assert data == columns
    assert config["peft_config"]["task_type"] == ("CAUSAL_LM" if task == "causal_lm" else "SEQ_CLS")
    assert (config["model_config"].get("problem_type") == "regression") == (task == "regression")
    assert config["trainer_config"]["eval_strategy"] == "epoch"
    for key in columns:
        assert f"data.{key}: " in report  # each assumption is told, with its reason
    assert "wrote run.yaml" in report


def test_max_length_is_the_99th_percentile_of_the_tokens(tmp_path, base):
    texts = [" ".join(["win"] * (1 + i % 70)) for i in range(200)]
    config, report = init(tmp_path, base, "rows.csv", as_csv([(t, "ab"[i % 2]) for i, t in enumerate(texts)], ("text", "label")))
    lengths = [len(ids) for ids in AutoTokenizer.from_pretrained(base)(texts)["input_ids"]]
    expected = int(np.percentile(lengths, 99, method="inverted_cdf"))
    assert f"have at most {expected} tokens, the longest has {max(lengths)}" in report
    assert config["tokenizer_config"]["max_length"] == min(-(-expected // 8) * 8, 128)


def test_without_the_model_the_length_is_estimated_and_said_so(tmp_path):
    (tmp_path / "rows.csv").write_bytes(as_csv(PAIRS, ("text", "label")))
    out = run(tmp_path, "init", "rows.csv", "--model", "nobody/has-this-model").out
    assert "estimated from bytes, as the model is not here" in out
    assert "the usual size; the model is not here" in out
    printed = run(tmp_path, "train", "--config", "run.yaml", "--print-config").out
    assert yaml.safe_load(printed)["trainer_config"]["per_device_train_batch_size"] == 8


def test_what_was_written_trains_as_it_is(tmp_path, base):
    (tmp_path / "rows.csv").write_bytes(as_csv(PAIRS, ("text", "label")))
    (tmp_path / "dev.csv").write_bytes(as_csv(PAIRS[:30], ("text", "label")))
    run(tmp_path, "init", "rows.csv", "--validation", "dev.csv", "--model", base, "--output", "mine.yaml")
    run(tmp_path, "train", "--config", "mine.yaml", "--set", f"runtime.cache_dir={tmp_path}/cache", "--set",
        "trainer_config.num_train_epochs=1", "--set", "runtime.threads_per_rank=1")
    events = [json.loads(line) for line in (tmp_path / "runs/rows/metrics.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "run_end" and events[-1]["status"] == "completed"
    assert any(event["event"] == "eval" for event in events)


def test_what_was_written_for_chats_trains_as_it_is(tmp_path, base):
    rows = chats("system", "user", "assistant", "tool", "assistant")
    for message in (message for row in rows for message in row["messages"]):
        message["content"] = message["content"][:16]  # the model has 128 positions
    (tmp_path / "talks.jsonl").write_bytes(as_jsonl(rows))
    out = run(tmp_path, "init", "talks.jsonl", "--model", base).out
    assert 'chats in the column "messages"' in out and 'columns that are not used: "source"' in out
    quick = ("--set", f"runtime.cache_dir={tmp_path}/cache", "--set", "runtime.threads_per_rank=1")
    run(tmp_path, "train", "--config", "run.yaml", "--set", "trainer_config.num_train_epochs=1", *quick)
    events = [json.loads(line) for line in (tmp_path / "runs/talks/metrics.jsonl").read_text().splitlines()]
    assert events[-1]["status"] == "completed" and any(event["event"] == "eval" for event in events)
    # The length is that of the whole chat, in the form that was written.
    form = lambda message: f"### {message['role'].capitalize()}:\n{message['content']}"  # noqa: E731
    tokenizer = AutoTokenizer.from_pretrained(base)
    lengths = [len(tokenizer("\n\n".join(map(form, row["messages"]))).input_ids) for row in rows]
    config = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert abs(config["tokenizer_config"]["max_length"] - np.percentile(lengths, 99)) <= 16
    asked = run(tmp_path, "generate", "--run", "runs/talks", "--prompt", "hello", "--max_tokens", "2", "--json", *quick)
    assert json.loads(asked.out)["prompt"] == "### User:\nhello\n\n### Assistant:\n"


def test_chats_without_the_model_and_rows_that_are_none(tmp_path):
    rows = chats("user", "assistant") + [{"messages": [{"role": "user", "content": "x"}]},
                                         {"messages": [{"role": "assistant", "content": None}]}]
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(rows))
    out = run(tmp_path, "init", "rows.jsonl", "--model", "nobody/has-this-model").out
    assert "2 of the first 122 rows have no chat that can be learned" in out and "(the first: line 121: no message has" in out
    config = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert config["tokenizer_config"]["max_length"] > 32 and "estimated from bytes" in out


def test_the_way_out_for_chats_of_sharegpt_leads_to_a_run(tmp_path, base):
    rows = chats("human", "gpt", column="conversations", role="from", content="value")
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(rows))
    err = run(tmp_path, "init", "rows.jsonl", code=3).err
    program = re.search(r"jq -c '(.*)' FILE > chats.jsonl", err, re.DOTALL).group(1).replace("\n", " ")
    if shutil.which("jq") is None:
        pytest.skip("no jq")
    made = subprocess.run(["jq", "-c", program, tmp_path / "rows.jsonl"], capture_output=True, check=True).stdout
    assert [json.loads(line) for line in made.splitlines()] == [
        {"messages": [{"role": {"human": "user", "gpt": "assistant"}[m["from"]], "content": m["value"]}
                      for m in row["conversations"]]} for row in rows]
    config, _ = init(tmp_path, base, "chats.jsonl", made)
    assert config["data"]["messages_column"] == "messages"


def test_it_says_what_deserves_a_look(tmp_path, base):
    rows = [{"text": t, "kind": i % 2, "id": i} for i, t in enumerate(TEXTS)]
    content = as_jsonl(rows) + b"{broken\n"
    (tmp_path / "rows.jsonl").write_bytes(content)
    out = run(tmp_path, "init", "rows.jsonl", "--model", base).out
    assert 'column "kind" has 2 values' in out and "data.label_column" in out
    assert 'columns that are not used: "id", "kind"' in out
    assert "1 of the first 121 rows cannot be read (the first: line 121:" in out
    assert "# note: 1 of the first 121 rows" in (tmp_path / "run.yaml").read_text()


def test_a_name_that_stands_twice_is_told(tmp_path, base):
    (tmp_path / "rows.csv").write_bytes(as_csv([(t, l, l) for t, l in PAIRS], ("text", "label", "label")))
    out = run(tmp_path, "init", "rows.csv", "--model", base).out
    note = 'note: more than one column has the name "label", so neoloom reads none of them: give each its own name\n'
    assert note in out and f"# {note}" in (tmp_path / "run.yaml").read_text()


def test_rows_without_a_label_are_told_with_the_key_that_leaves_them_out(tmp_path, base):
    rows = [{"text": t, "label": None if i < 3 else l} for i, (t, l) in enumerate(PAIRS)]
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(rows))
    out = run(tmp_path, "init", "rows.jsonl", "--model", base).out
    assert '3 of the first 120 rows have no value in "label", which ends the run: fill them in' in out
    text = (tmp_path / "run.yaml").read_text()
    [above, _] = text.split("  label_column: label\n")
    assert "; 3 of the first 120 rows have no value, which ends the run: see the note" in above.splitlines()[-1]
    dry = ("train", "--config", "run.yaml", "--dry-run", "--set", f"runtime.cache_dir={tmp_path}/cache")
    assert "3 of 120 rows cannot be read" in run(tmp_path, *dry, code=3).err
    [key, value] = re.search(r"(data.invalid_data_tolerance_percent): (\d+)\n", out).groups()
    run(tmp_path, *dry, "--set", f"{key}={value}")


def test_the_next_commands_are_quoted_for_a_shell(tmp_path, base):
    (tmp_path / "a row's.csv").write_bytes(as_csv(PAIRS[:1], ("text", "label")))
    out = run(tmp_path, "init", "a row's.csv", "--model", base, "--output", "it's $mine.yaml").out
    assert "; 1 different value in 1 row: " in out and "CSV, 1 row\n" in out
    [plan, train] = re.findall(r"neoloom (?:plan|train) --config (.*?)(?:, then|\n)", out[out.index("next: "):])
    [head] = re.findall(r"^#   neoloom train --config (.*)$", (tmp_path / "it's $mine.yaml").read_text(), re.M)
    for word in (plan, train, head):
        told = subprocess.run(["bash", "-c", f"printf '%s|' {word}"], capture_output=True, text=True, check=True).stdout
        assert told == "it's $mine.yaml|"


def test_a_file_without_any_label_is_refused_by_its_column(tmp_path, base):
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl({"text": t, "labels": []} for t in TEXTS))
    sets = (f"model_config.pretrained_model_name={base}", "data.train=rows.jsonl", "data.labels_column=labels",
            "model_config.problem_type=multi_label_classification", "peft_config.task_type=SEQ_CLS",
            f"runtime.cache_dir={tmp_path}/cache")
    (tmp_path / "run.yaml").write_text("trainer_config: {output_dir: out}\n")
    err = run(tmp_path, "train", "--config", "run.yaml", "--dry-run", *(w for s in sets for w in ("--set", s)), code=3).err
    assert "rows.jsonl: no row has a label" in err and "data.labels_column" in err and "num_labels" not in err


def test_a_pattern_stays_a_pattern(tmp_path, base):
    for i in range(2):
        (tmp_path / f"part-{i}.csv").write_bytes(as_csv(PAIRS[i * 60: i * 60 + 60], ("text", "label")))
    run(tmp_path, "init", "part-*.csv", "--model", base)
    plan = run(tmp_path, "plan", "--config", "run.yaml", "--set", f"runtime.cache_dir={tmp_path}/cache").out
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["data"]["train"] == "part-*.csv"
    assert "120 (0 rows left out" in plan


def test_few_rows_are_not_split(tmp_path, base):
    config, report = init(tmp_path, base, "rows.jsonl", as_jsonl({"text": t} for t in TEXTS[:5]))
    assert "validation_split" not in config["data"] and "eval_strategy" not in config["trainer_config"]
    assert "note: too few to hold some out, so that the run does not evaluate: 5 samples" in report


@pytest.mark.parametrize("arguments, code, words", [
    ((), 2, "DATA"),
    (("gone.csv",), 3, "gone.csv"),
    (("numbers.csv",), 3, "no column holds texts"),
    (("flags.jsonl",), 3, "one flag a label"),
    (("blank.jsonl",), 3, 'the lists of "labels" in the first 120 rows are all empty'),
    (("twice.csv",), 3, 'more than one column has the name "text"'),
    (("empty.csv",), 3, "no rows"),
    (("bots.jsonl",), 3, 'have the roles "user", "bot", none of them "assistant"'),
    (("rows.csv", "--model", "./gone"), 4, "./gone"),
    (("rows.csv", "--validation", "gone-*.csv"), 3, "gone-*.csv"),
    (("rows.csv", "--from", "rows.csv"), 2, "rows.csv"),
    (("rows.csv", "--from", "other.json"), 2, "neither TrainingArguments"),
    (("rows.csv", "--from", "adapter.json", "adapter.json"), 2, "a second file"),
])
def test_what_it_cannot_begin_with_is_one_message(arguments, code, words, tmp_path):
    (tmp_path / "rows.csv").write_bytes(as_csv(PAIRS, ("text", "label")))
    (tmp_path / "numbers.csv").write_bytes(as_csv([(i, i * 2) for i in range(9)], ("a", "b")))
    (tmp_path / "flags.jsonl").write_bytes(as_jsonl({"text": t, "labels": [i % 2, 1]} for i, t in enumerate(TEXTS)))
    (tmp_path / "blank.jsonl").write_bytes(as_jsonl({"text": t, "labels": []} for t in TEXTS))
    (tmp_path / "twice.csv").write_bytes(as_csv([(t, t, i) for i, t in enumerate(TEXTS)], ("text", "text", "id")))
    (tmp_path / "bots.jsonl").write_bytes(as_jsonl(chats("user", "bot")))
    (tmp_path / "empty.csv").write_text("text,label\n")
    (tmp_path / "other.json").write_text('{"name": 1}')
    (tmp_path / "adapter.json").write_text('{"peft_type": "LORA"}')
    err = run(tmp_path, "init", *arguments, code=code).err
    assert words in err and err.count("neoloom: error: ") == 1
    assert not (tmp_path / "run.yaml").exists()


def test_an_existing_file_stays(tmp_path):
    (tmp_path / "rows.csv").write_bytes(as_csv(PAIRS, ("text", "label")))
    (tmp_path / "run.yaml").write_text("mine")
    err = run(tmp_path, "init", "rows.csv", code=2).err
    assert "run.yaml exists" in err and "--output" in err
    assert (tmp_path / "run.yaml").read_text() == "mine"


def write_script(folder, base, **arguments):
    """Writes what a script with Trainer and PEFT would."""
    arguments = {"output_dir": "out", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 7,
                 "learning_rate": 3e-4, "lr_scheduler_type": "cosine", "warmup_steps": 2, "weight_decay": 0.01,
                 "eval_strategy": "steps", "eval_steps": 5, "report_to": "none", "seed": 7, **arguments}
    (folder / "training_args.json").write_text(TrainingArguments(use_cpu=True, **arguments).to_json_string())
    LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=32, lora_dropout=0.1, target_modules=["q_proj", "k_proj"],
               base_model_name_or_path=str(base)).save_pretrained(folder)


def printed(folder, *arguments):
    return yaml.safe_load(run(folder, "train", "--print-config", *arguments).out)


def test_the_files_of_a_script_become_the_same_configuration(tmp_path, base):
    write_script(tmp_path, base)
    (tmp_path / "rows.csv").write_bytes(as_csv(PAIRS, ("text", "label")))
    out = run(tmp_path, "init", "rows.csv", "--from", "adapter_config.json", "training_args.json").out
    # The strict reader takes both files whole.
    (tmp_path / "data.yaml").write_text("data: {train: rows.csv, validation_split: 0.1, label_column: label}\n"
                                        f"model_config: {{pretrained_model_name: {base}}}\n")
    whole = printed(tmp_path, "--config", "data.yaml", "--trainer_config", "training_args.json", "--peft_config",
                    "adapter_config.json")
    ours = printed(tmp_path, "--config", "run.yaml")
    assert ours["trainer_config"].pop("gradient_checkpointing") == "auto"
    del whole["trainer_config"]["gradient_checkpointing"]
    assert ours["tokenizer_config"].pop("max_length") > 0
    del whole["tokenizer_config"]["max_length"]
    assert ours == whole
    text = (tmp_path / "run.yaml").read_text()
    assert "logging_steps: 500" in text and "adam_beta1" not in text  # Hugging Face's default differs here, or not
    assert "without effect: trainer_config.gradient_checkpointing: false" in out
    run(tmp_path, "train", "--config", "run.yaml", "--set", f"runtime.cache_dir={tmp_path}/cache")


def test_keys_that_change_nothing_and_refused_ones_are_listed_with_the_reason(tmp_path, base):
    write_script(tmp_path, base, dataloader_num_workers=3, report_to=["tensorboard", "wandb"], optim="adagrad", neftune_noise_alpha=5)
    out = run(tmp_path, "init", "--from", "training_args.json", "adapter_config.json").out
    assert "without effect: trainer_config.dataloader_num_workers: 3 (one thread of each rank prepares batches" in out
    assert "refused: trainer_config.optim: adagrad (" in out
    assert "refused: trainer_config.report_to: wandb (wandb is not supported" in out
    text = (tmp_path / "run.yaml").read_text()
    assert "# refused: trainer_config.optim: adagrad" in text
    config = printed(tmp_path, "--config", "run.yaml")
    assert config["trainer_config"]["optim"] == "adamw_torch" and config["runtime"]["device"] == "cpu"
    assert config["trainer_config"]["report_to"] == ["tensorboard"]
    assert config["trainer_config"]["neftune_noise_alpha"] == 5
    assert config["data"]["train"] == "train.jsonl" and "a placeholder" in out
    assert config["model_config"]["pretrained_model_name"] == str(base)


def test_training_arguments_alone_train_every_parameter(tmp_path, base):
    write_script(tmp_path, base)
    (tmp_path / "rows.csv").write_bytes(as_csv(PAIRS, ("text", "label")))
    out = run(tmp_path, "init", "rows.csv", "--from", "training_args.json", "--model", base).out
    assert "every parameter is trained" in out
    config = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert "peft_config" not in config and config["data"]["label_column"] == "label"
    run(tmp_path, "plan", "--config", "run.yaml")

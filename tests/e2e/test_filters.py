# SPDX-License-Identifier: Apache-2.0
"""predict and generate as filters: a line of standard input, a line of standard output, while the model stays loaded."""

import json
import select
import signal
import subprocess

import common
import pytest
import tiny_model
from runs import assert_one_message, json_lines, train, write_jsonl

USAGE, DATA = 2, 3
LABELS = ["ham", "spam"]
ROWS = [{"id": 10 * i, "text": text} for i, text in enumerate(tiny_model.sample_texts(count=19, seed=3))]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("cls") / "base", head="sequence_classification",
                                        labels=LABELS, std=0.3)


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return tiny_model.make_model_folder(tmp_path_factory.mktemp("lm") / "base", std=0.3)


def settings(cache):
    sets = ["runtime.device=cpu", "runtime.threads_per_rank=1", f"runtime.cache_dir={cache}",
            "model_config.frozen_dtype=float32"]
    return [word for setting in sets for word in ("--set", setting)]


def ended(cache, *arguments, stdin="", ranks=0):
    done = subprocess.run(common.command(ranks, *arguments, *settings(cache)), env=common.environment(), input=stdin,
                          capture_output=True, text=True, timeout=120)
    return common.Ended(done.returncode, done.stdout, done.stderr)


class Filter:
    """A command whose standard input stays open."""

    def __init__(self, cache, *arguments):
        self.process = subprocess.Popen(common.command(0, *arguments, *settings(cache)), env=common.environment(), bufsize=0,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def send(self, text):
        self.process.stdin.write(text.encode())

    def receive(self, seconds=60):
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        assert ready, "no answer"
        return json.loads(self.process.stdout.readline())

    def end(self):
        """Returns the exit code and what is left of both streams."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode(), err.decode()

    def ask(self, text):
        self.send(text + "\n")
        return self.receive()


@pytest.fixture
def started(cache):
    running = []

    def start(*arguments):
        running.append(Filter(cache, *arguments))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.wait()


# predict


def test_lines_have_the_bytes_of_a_file(classifier, cache, tmp_path):
    rows = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    # Rows of a file share batches, which changes last digits. Here each is a batch.
    model = ("predict", "--model", classifier, "--keep", "id,words=text", "--set",
             "trainer_config.per_device_eval_batch_size=1")
    whole = ended(cache, *model, "--input", rows).expect(0).out
    assert len(whole.splitlines()) == len(ROWS)
    assert ended(cache, *model, "--input", "-", "--output", "-", stdin=rows.read_text()).expect(0).out == whole
    assert ended(cache, *model, "--input", "-", stdin=rows.read_text().rstrip("\n")).expect(0).out == whole
    assert not ended(cache, *model, "--input", "-", "--output", tmp_path / "out.jsonl", stdin=rows.read_text()).expect(0).out
    assert (tmp_path / "out.jsonl").read_text() == whole


def test_each_line_is_answered_while_the_input_stays_open(classifier, started):
    labeller = started("predict", "--model", classifier, "--input", "-")
    assert labeller.ask('{"text": "free cash"}')["index"] == 0
    labeller.send('{"text": "see ')
    assert not select.select([labeller.process.stdout], [], [], 0.5)[0], "half a line has an answer"
    assert labeller.ask('you"}')["index"] == 1
    labeller.send('{"text": "a"}\n{"text": "b"}\n{"text": "c"')
    assert [labeller.receive()["index"] for _ in range(2)] == [2, 3]
    labeller.send("}")
    code, out, err = labeller.end()
    assert code == 0 and json.loads(out)["index"] == 4, err


def test_a_bad_line_has_an_error_and_the_filter_goes_on(classifier, cache):
    bad = ["{", "[1]", '{"id": 7}', '{"id": 8, "text": 5}', "", '{"text": ""}']
    good = '{"id": 9, "text": "free cash"}'
    out = ended(cache, "predict", "--model", classifier, "--input", "-", "--keep", "id",
                stdin="\n".join([good, *bad, good]) + "\n").expect(0).out
    lines = json_lines(out)
    assert [line["index"] for line in lines] == list(range(8))
    assert [line.get("line") for line in lines] == [None, *range(2, 8), None]
    assert [line["id"] for line in lines] == [9, None, None, 7, 8, None, None, 9]
    assert all(("error" in line) == ("line" in line) and ("label" in line) != ("error" in line) for line in lines)
    words = ["not valid JSON", "found array", 'no value for "text"', "found the integer 5", "the line is empty", "the text is empty"]
    for line, word in zip(lines[1:-1], words, strict=True):
        assert word in line["error"]
    assert {**lines[0], "index": 7} == lines[-1]
    # A byte that is not UTF-8.
    done = subprocess.run(common.command(0, "predict", "--model", classifier, "--input", "-", *settings(cache)),
                          env=common.environment(), input=b'{"text": "caf\xe9"}\n' + good.encode(), capture_output=True)
    first, second = json_lines(done.stdout.decode())
    assert "data.encoding: latin-1" in first["error"] and second["label"] in LABELS and done.returncode == 0


def test_lines_that_were_cut_are_told_at_the_end(classifier, cache):
    lines = '{"text": "free cash call now"}\n{"text": "a"}\n' * 2
    short = ("--set", "tokenizer_config.max_length=2")
    err = ended(cache, "predict", "--model", classifier, "--input", "-", *short, stdin=lines).expect(0).err
    assert "50 % of 4 rows were cut (see tokenizer_config.max_length)" in err
    assert "were cut" not in ended(cache, "predict", "--model", classifier, "--input", "-", stdin=lines).expect(0).err


def test_csv_and_text(classifier, cache, tmp_path):
    model = ("predict", "--model", classifier, "--input")
    expected = [line["scores"] for line in json_lines(
        ended(cache, *model, "-", stdin='{"text": "free, cash"}\n{"text": "stop"}\n').expect(0).out)]
    csv = 'id,text\n1,"free, cash"\n2,"half\n3\n4,stop\n'
    lines = json_lines(ended(cache, *model, "-", "--keep", "id", "--set", "data.format=csv", stdin=csv).expect(0).out)
    assert [line["id"] for line in lines] == ["1", None, None, "4"] and [line["index"] for line in lines] == [0, 1, 2, 3]
    assert [lines[0]["scores"], lines[3]["scores"]] == expected
    assert lines[1]["line"] == 3 and "opens a field on line 3 is never closed" in lines[1]["error"]
    assert lines[2]["line"] == 4 and "1 fields, expected 2" in lines[2]["error"]
    bare = ("--set", "data.format=csv", "--set", "data.header=false", "--set", "data.text_column=1")
    lines = json_lines(ended(cache, *model, "-", *bare, stdin=csv.partition("\n")[2]).expect(0).out)
    assert [lines[0]["scores"], lines[3]["scores"]] == expected and "error" in lines[1] and "error" in lines[2]
    lines = json_lines(ended(cache, *model, "-", "--set", "data.format=text", "--keep", "text",
                             stdin="free, cash\r\n\nstop").expect(0).out)
    assert [lines[0]["scores"], lines[2]["scores"]] == expected and lines[0]["text"] == "free, cash" and "error" in lines[1]
    latin = subprocess.run(common.command(0, *model, "-", "--set", "data.format=text", "--set", "data.encoding=latin-1",
                                          "--keep", "text", *settings(cache)),
                           env=common.environment(), input="café\n".encode("latin-1"), capture_output=True)
    assert json.loads(latin.stdout)["text"] == "café"


def test_what_makes_every_line_useless_ends_the_filter(classifier, cache):
    model = ("predict", "--model", classifier, "--input", "-")
    sets = ("--set", "data.format=csv")
    assert_one_message(ended(cache, *model, *sets, stdin="id,words\n1,a\n").expect(DATA), "standard input", '"text"', '"words"')
    assert_one_message(ended(cache, *model, *sets, "--keep", "key", stdin="id,text\n1,a\n").expect(DATA), '"key"', "--keep")
    assert_one_message(ended(cache, *model, "--set", "data.format=parquet").expect(USAGE), "data.format", "jsonl")
    assert_one_message(ended(cache, *model, stdin='{"text": "a"}\n', ranks=2).expect(USAGE), "--input -", "2")


def test_a_run_of_csv_takes_jsonl_lines_unless_told_otherwise(data, cache, tmp_path):
    config = common.make_config("classification", data, cache)
    rows = json_lines((data / "train.jsonl").read_text())
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in rows))
    config["data"] = {"train": str(tmp_path / "train.csv"), "format": "csv", "label_column": "label"}
    config["trainer_config"] = {"max_steps": 1, "per_device_train_batch_size": 2}
    run, _ = train(tmp_path, cache, config)
    predict = ("predict", "--run", run.folder, "--input", "-")
    [line] = json_lines(ended(cache, *predict, stdin='{"text": "free cash"}\n').expect(0).out)
    [same] = json_lines(ended(cache, *predict, "--set", "data.format=csv", stdin="text\nfree cash\n").expect(0).out)
    assert line == same


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_signal_ends_the_filter_cleanly(classifier, started, number):
    labeller = started("predict", "--model", classifier, "--input", "-")
    labeller.ask('{"text": "free cash"}')
    labeller.process.send_signal(number)
    assert labeller.process.wait(timeout=60) == 0, "while its input is open"
    code, out, err = labeller.end()
    assert code == 0 and not out and f"signal {int(number)} after 1 lines" in err


def test_several_models_share_the_lines(classifier, data, cache, tmp_path):
    runs = []
    for name, rate in (("a", 1e-2), ("b", 1e-3)):
        config = common.make_config("classification", data, cache)
        config["trainer_config"] = {"max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": rate}
        runs += ["--run", f"{name}={train(tmp_path / name, cache, config)[0].folder}"]
    rows = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    runs += ["--set", "trainer_config.per_device_eval_batch_size=1"]
    whole = ended(cache, "predict", *runs, "--input", rows).expect(0).out
    assert ended(cache, "predict", *runs, "--input", "-", stdin=rows.read_text()).expect(0).out == whole
    csv = "text\n" + "".join(f'"{row["text"]}"\n' for row in ROWS)
    assert ended(cache, "predict", *runs, "--input", "-", "--set", "data.format=csv", stdin=csv).expect(0).out == whole
    lines = json_lines(ended(cache, "predict", *runs, "--input", "-", stdin="{\n").expect(0).out)
    assert lines[0].keys() == {"index", "error", "line"}


# generate


def test_prompts_have_the_texts_of_a_file(lm, cache, tmp_path):
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": row["text"]} for row in ROWS[:5]])
    generate = ("generate", "--model", lm, "--max_tokens", 8, "--num_return_sequences", 2)
    whole = ended(cache, *generate, "--json", "--prompt_file", prompts).expect(0).out
    assert len(whole.splitlines()) == 10
    assert ended(cache, *generate, "--prompt_file", "-", stdin=prompts.read_text()).expect(0).out == whole
    plain = "".join(row["text"] + "\n" for row in ROWS[:5])
    assert ended(cache, *generate, "--prompt_file", "-", "--set", "data.format=text", stdin=plain).expect(0).out == whole
    assert_one_message(ended(cache, *generate, "--prompt_file", "-", ranks=2).expect(USAGE), "--prompt_file -")


def test_a_bad_prompt_has_an_error_and_the_filter_goes_on(lm, started):
    writer = started("generate", "--model", lm, "--max_tokens", 4, "--prompt_file", "-")
    assert writer.ask('{"prompt": "free cash"}')["prompt"] == "free cash"
    assert writer.ask('{"text": "free cash"}') == {"error": 'expected the text "prompt", found no text', "line": 2}
    assert "not valid JSON" in writer.ask("nonsense")["error"]
    long = writer.ask(json.dumps({"prompt": "free cash " * 100}))
    assert "201 tokens, the model takes 64" in long["error"] and long["line"] == 4
    assert writer.ask('{"prompt": "stop"}')["prompt"] == "stop"
    assert writer.end()[:2] == (0, "")


def test_prompts_fill_in_the_template_of_the_run(data, cache, tmp_path):
    rows = write_jsonl(tmp_path / "train.jsonl", [{"instruction": "sort", "input": "b a", "output": "a b"}] * 4)
    config = {"model_config": {"pretrained_model_name": str(data / "base")}, "peft_config": {},
              "tokenizer_config": {"max_length": 64}, "trainer_config": {"max_steps": 1},
              "data": {"train": str(rows), "template": "{instruction}{?input} of {input}{/input}: {output}"}}
    run, _ = train(tmp_path, cache, config)
    generate = ("generate", "--run", run.folder, "--max_tokens", 4, "--prompt_file", "-")
    lines = json_lines(ended(cache, *generate, stdin='{"instruction": "sort", "input": "c"}\n{"input": "c"}\n').expect(0).out)
    assert lines[0]["prompt"] == "sort of c: " and '"instruction"' in lines[1]["error"]
    [line] = json_lines(ended(cache, *generate, "--set", "data.format=csv", stdin="input,instruction\nc,sort\n").expect(0).out)
    assert line == lines[0]
    [line] = json_lines(ended(cache, *generate, "--no_template", stdin='{"prompt": "sort"}\n').expect(0).out)
    assert line["prompt"] == "sort"


def test_the_encoding_of_the_runs_files_is_not_that_of_a_stream(data, cache, tmp_path):
    rows = "text,label\n" + "".join(f"café {i},{'ab'[i % 2]}\n" for i in range(8))
    (tmp_path / "train.csv").write_text(rows, encoding="latin-1")
    config = {"model_config": {"pretrained_model_name": str(data / "base")}, "peft_config": {},
              "trainer_config": {"max_steps": 1},
              "data": {"train": str(tmp_path / "train.csv"), "encoding": "latin-1", "label_column": "label"}}
    run, _ = train(tmp_path, cache, config)
    predict = ("predict", "--run", run.folder, "--keep", "text", "--input")
    write_jsonl(tmp_path / "new.jsonl", [{"text": "café"}])
    (tmp_path / "new.csv").write_text("text\ncafé\n", encoding="latin-1")
    line = (tmp_path / "new.jsonl").read_text()
    for path, stdin, name in (("-", line, "standard input"), (tmp_path / "new.jsonl", "", "new.jsonl"), (tmp_path / "new.csv", "", "")):
        done = ended(cache, *predict, path, stdin=stdin).expect(0)
        assert json_lines(done.out)[0]["text"] == "café"
        assert (f"{name} is read as utf-8, not in the run's data.encoding latin-1" in done.err) == bool(name)
    done = ended(cache, *predict, "-", "--set", "data.encoding=latin-1", stdin=line).expect(0)
    assert json_lines(done.out)[0]["text"] == "caf\u00c3\u00a9" and "is read as" not in done.err

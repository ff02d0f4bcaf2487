# SPDX-License-Identifier: Apache-2.0
"""report.html: one file that loads nothing, with every section of a run that was killed and resumed, the numbers of
metrics.jsonl, and a comparison of several runs."""

import json
import re
import shutil
import statistics
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import common
import pytest
import tiny_model
from runs import assert_one_message, write_long_run

LABELS = ("ham", "<script>alert(1)</script>", 'a & b "c"')
SECTIONS = ("summary", "training", "evaluation", "speed", "data", "timeline", "configuration")
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that tags are balanced. Keeps names of tags, attributes, ids, and the tables: caption or figure, then rows."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.ids = [], [], [], []
        self.tables, self.figures, self.figure, self.cell, self.text = [], {}, None, None, ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
            if self.figure:
                self.figures[self.figure] = self.tables[-1]
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th", "figcaption"):
            self.cell = ""

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self.cell)
        elif tag == "figcaption":
            self.figure = self.cell
        elif tag == "figure":
            self.figure = None
        if tag in ("td", "th", "figcaption"):
            self.cell = None

    def handle_data(self, data):
        self.text += data
        if self.cell is not None:
            self.cell += data

    def numbers(self, figure):
        """Returns the rows of a chart's table as numbers; None for those that are missing."""
        [head, *rows] = self.figures[figure]
        return head, [[None if cell == "–" else float(cell) for cell in row] for row in rows]

    def table(self, first):
        [found] = [table for table in self.tables if table and table[0][0] == first]
        return found


def read_page(path):
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    ElementTree.fromstring(text)  # it is XML, too
    assert not {"script", "img", "iframe", "link", "object", "embed"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {"src", "srcset"} & names and not any(name.startswith("on") for name in names)
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert not re.search(r"https?://|url\(|@import", text)
    return page


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny_model.make_model_folder(folder / "base", hidden_size=32, num_layers=2, std=0.1)
    tiny_model.write_classification_jsonl(folder / "train.jsonl", common.ROWS, LABELS, seed=1)
    tiny_model.write_classification_jsonl(folder / "validation.jsonl", 21, LABELS, seed=2)
    return folder


@pytest.fixture(scope="module")
def config(data, cache):
    return common.make_config("classification", data, cache)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, config):
    """A run of two ranks that was killed, and resumed by one."""
    run = common.Run(tmp_path_factory.mktemp("runs") / "resumed", config)
    assert run.train(2, NEOLOOM_FAULT="kill:rank=1:step=8").code not in (0, common.STOPPED)
    run.train(1).expect(0)
    return run


def test_a_killed_and_resumed_run_has_every_section(resumed):
    page = read_page(resumed.folder / "report.html")
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
    for figure in ("Loss", "Learning rate", "Gradient norm before clipping", "Scores", "Calibration error", "Calibration",
                   "Tokens per second of each device", "Shares of the time, mean of the devices",
                   "Peak memory of each device (GB)", "Training samples by length", "Steps over time"):
        assert figure in page.figures, figure
    assert page.tags.count("figure") == len(page.figures)
    charts = [value for name, value in page.attributes if name == "aria-label"]
    assert len(charts) == len(page.figures) and all(charts)
    assert "There is no" not in page.text


def test_the_numbers_are_those_of_metrics_jsonl(resumed):
    page = read_page(resumed.folder / "report.html")
    train, evaluations = resumed.events("train"), resumed.events("eval")
    head, rows = page.numbers("Loss")
    assert head == ["step", "training", "eval"]
    losses = {event["step"]: event["eval_loss"] for event in evaluations}
    assert rows == [[event["step"], event["loss"], losses.get(event["step"])] for event in train]
    for figure, key in (("Learning rate", "learning_rate"), ("Gradient norm before clipping", "grad_norm")):
        assert page.numbers(figure)[1] == [[event["step"], event[key]] for event in train]
    head, rows = page.numbers("Scores")
    assert rows == [[e["step"], *(e[f"eval_{name}"] for name in head[1:])] for e in evaluations]
    head, rows = page.numbers("Tokens per second of each device")
    assert len(head) == 3  # a column for each device, ranks of both starts
    found = [sorted(value for value in row[1:] if value is not None) for row in rows]
    assert found == [sorted(d["tokens_per_s"] for d in event["devices"]) for event in train]
    last = evaluations[-1]
    assert [[row[0], *map(int, row[1:3]), *row[3:6]] for row in page.table("label")[1:]] == [
        [c["label"], c["rows"], c["predicted"], *(f"{c[name]:.4g}" for name in ("precision", "recall", "f1"))]
        for c in last["eval_per_class"]]
    matrix = page.table("true \\ predicted")
    assert matrix[0][1:] == last["eval_labels"]
    assert [list(map(int, row[1:])) for row in matrix[1:]] == last["eval_confusion_matrix"]
    curve = {row[0]: row[1] for row in page.numbers("Calibration")[1]}
    assert all(curve[b["confidence"]] == b["right"] for b in last["eval_calibration"])
    assert sum(b["predictions"] for b in last["eval_calibration"]) == 21
    error = sum(b["predictions"] / 21 * abs(b["confidence"] - b["right"]) for b in last["eval_calibration"])
    assert error == pytest.approx(last["eval_expected_calibration_error"], abs=1e-9)
    lengths = resumed.events("run_start")[-1]["token_lengths"]
    assert sum(b["samples"] for b in lengths) == common.ROWS
    assert [row[1] for row in page.figures["Training samples by length"][1:]] == [str(b["samples"]) for b in lengths]


def test_the_timeline_tells_of_checkpoints_and_the_resume(resumed):
    page = read_page(resumed.folder / "report.html")
    told = [(row[1], row[2]) for row in page.table("time (UTC)")[1:]]
    [resume] = resumed.events("resume")
    assert told.count(("–", "start")) == 2 and (str(resume["step"]), "resume") in told and told[-1] == ("15", "completed")
    assert {step for step, what in told if what == "checkpoint"} == {str(e["step"]) for e in resumed.events("checkpoint")}
    times = [event["time"] for event in resumed.events()]
    assert times == sorted(times) and times[0] > 1.7e9
    assert page.numbers("Steps over time")[0][1:] == ["step", "resume", "end", "checkpoint"]


def test_the_command_writes_the_same_page(resumed, tmp_path):
    named = tmp_path / "new" / "page.html"
    assert common.neoloom(0, "report", "--run", resumed.folder, "--output", named).expect(0).out == f"{named}\n"
    assert named.read_text() == (resumed.folder / "report.html").read_text()
    before = (resumed.folder / "report.html").read_text()
    (resumed.folder / "report.html").unlink()
    common.neoloom(2, "report", "--run", resumed.folder).expect(0)
    assert (resumed.folder / "report.html").read_text() == before


def test_runs_that_differ_by_their_seed_give_mean_and_spread(config, tmp_path):
    runs = [common.Run(tmp_path / name, config, trainer_config={"max_steps": 4, **changes})
            for name, changes in (("s1", {"seed": 1}), ("s2", {"seed": 2}), ("s3", {"seed": 3}),
                                  ("slow", {"seed": 1, "learning_rate": 1e-4}))]
    for run in runs:
        run.train(0).expect(0)
    folders = ["--run", runs[0].folder, "--run", runs[1].folder, runs[2].folder]  # several after one --run, too
    page_file = tmp_path / "compared.html"
    common.neoloom(0, "report", *folders, "--run", f"other={runs[3].folder}", "--output", page_file).expect(0)
    page = read_page(page_file)
    accuracies = [run.events("eval")[-1]["eval_accuracy"] for run in runs]
    [outcomes, spread] = [table for table in page.tables if table and table[0][0] == "last value"]
    assert outcomes[0] == ["last value", "s1", "s2", "s3", "other"]
    assert [float(cell) for row in outcomes if row[0] == "eval_accuracy" for cell in row[1:]] == pytest.approx(accuracies, rel=1e-5)
    assert max(len(cell) for row in outcomes[1:] + spread[1:] for cell in row[1:]) <= 11  # 6 digits: 1.23457e-05
    [row] = [row for row in spread if row[0] == "eval_accuracy"]
    mean, deviation, least, greatest, count = map(float, row[1:])
    assert mean == pytest.approx(statistics.mean(accuracies[:3]), rel=1e-5) and count == 3
    assert deviation == pytest.approx(statistics.stdev(accuracies[:3]), rel=1e-5)
    assert (least, greatest) == pytest.approx((min(accuracies[:3]), max(accuracies[:3])), rel=1e-5)
    [differences] = [table for table in page.tables if table and table[0] == ["key", "s1", "s2", "s3", "other"]]
    assert [row[0] for row in differences[1:]] == ["trainer_config.learning_rate", "trainer_config.seed"]
    assert page.numbers("Training loss")[1] == [
        [step + 1, *(run.events("train")[step]["loss"] for run in runs)] for step in range(4)]
    assert [f"run{i}-{name}" in page.ids for i in range(1, 5) for name in SECTIONS] == [True] * 28


def test_the_page_of_a_long_run_stays_small_and_keeps_its_peaks(tmp_path):
    write_long_run(tmp_path, 20_000, spike=12_345)
    common.neoloom(0, "report", "--run", tmp_path).expect(0)
    page = read_page(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 600_000
    paths = [value for name, value in page.attributes if name == "d"]
    assert 400 <= max(path.count("L") for path in paths) <= 2 * 400
    assert len(page.figures["Loss"]) == 501 and page.numbers("Loss")[1][-1][:2] == [20_000, 1.0]
    [loss] = [value for name, value in page.attributes if name == "aria-label" and value.startswith("Loss over step.")]
    assert "from 2 at 1 to 1 at 20000; least 1 at 20000, greatest 50 at 12345" in loss
    [norm] = [value for name, value in page.attributes if name == "aria-label" and value.startswith("Gradient norm")]
    assert "greatest 9 at 12346" in norm
    tokens = page.numbers("Tokens per second of each device")[1]
    assert len(tokens) == 500 and all(step == value for step, value in tokens)


def test_a_run_without_evaluations_says_what_is_missing(config, tmp_path):
    run = common.Run(tmp_path / "run", config, trainer_config={"max_steps": 1, "eval_strategy": "no"})
    run.train(0).expect(0)
    page = read_page(run.folder / "report.html")
    assert "There is no evaluation yet" in page.text
    assert page.numbers("Loss")[1] == [[1.0, run.events("train")[0]["loss"]]]


def test_a_language_model_has_no_tables_of_labels(data, cache, tmp_path):
    run = common.Run(tmp_path / "run", common.make_config("causal", data, cache), trainer_config={"max_steps": 4})
    run.train(0).expect(0)
    page = read_page(run.folder / "report.html")
    assert "The task does not classify" in page.text and "Most confident mistakes" not in page.text
    [event] = run.events("eval")
    for figure, key in (("Perplexity", "eval_perplexity"), ("Token accuracy", "eval_token_accuracy")):
        assert page.numbers(figure)[1] == [[4, event[key]]]


def labelled_wrongly(folder, data, predictions):
    """Returns the wrong rows of the validation data by falling score, as predict writes them."""
    common.neoloom(0, "predict", "--run", folder, "--input", data / "validation.jsonl", "--output", predictions,
                   "--keep", "truth=label,text").expect(0)
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    wrong = sorted((row for row in rows if row["label"] != row["truth"]), key=lambda row: -row["score"])
    assert wrong
    return wrong[:20]


def assert_shows(folder, wrong):
    shown = read_page(folder / "report.html").table("row")[1:]
    assert [row[:3] + row[5:] for row in shown] == [
        [str(row["index"]), row["truth"], row["label"], f"text: {row['text']}"] for row in wrong]


def test_the_page_shows_the_most_confident_mistakes_of_the_last_evaluation(resumed, data, tmp_path):
    wrong = labelled_wrongly(resumed.folder, data, tmp_path / "predictions.jsonl")
    lines = [json.loads(line) for line in (resumed.folder / "mistakes.jsonl").read_text().splitlines()]
    for row in wrong:
        row["scores"] = {row["truth"]: row["scores"][row["truth"]]}
    assert lines == wrong
    assert_shows(resumed.folder, wrong)


def test_the_mistakes_are_the_same_for_any_number_of_ranks(resumed, config, tmp_path):
    run = common.Run(tmp_path / "three", config)
    run.train(3).expect(0)
    assert (run.folder / "mistakes.jsonl").read_text() == (resumed.folder / "mistakes.jsonl").read_text()


def test_predictions_in_the_run_folder_show_the_most_confident_mistakes(resumed, data, tmp_path):
    folder = shutil.copytree(resumed.folder, tmp_path / "copy")
    (folder / "mistakes.jsonl").unlink()
    wrong = labelled_wrongly(folder, data, folder / "predictions.jsonl")
    common.neoloom(0, "report", "--run", folder).expect(0)
    assert_shows(folder, wrong)


def test_what_cannot_be_reported_is_refused(resumed, tmp_path):
    assert_one_message(common.neoloom(0, "report", "--run", tmp_path).expect(2), tmp_path, "metrics.jsonl")
    twice = ("--run", resumed.folder, "--run", f"b={resumed.folder}")
    assert_one_message(common.neoloom(0, "report", *twice).expect(2), "--output")
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert_one_message(common.neoloom(0, "report", *twice, "--output", blocked / "page.html").expect(74), blocked)


def test_a_report_that_cannot_be_written_does_not_fail_the_run(config, tmp_path):
    run = common.Run(tmp_path / "run", config, trainer_config={"max_steps": 1})
    (run.folder / "report.html").mkdir(parents=True)
    ended = run.train(0).expect(0)
    assert "report.html was not written" in ended.err
    assert json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])["status"] == "completed"

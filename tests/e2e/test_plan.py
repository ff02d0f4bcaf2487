# SPDX-License-Identifier: Apache-2.0
"""`plan` for a device that is not here: at the rates and with the memory that its data sheet, or the caller, states."""

import json
import re

import pytest
from common import SOURCE, Run, make_config, neoloom
from runs import assert_one_message, write_jsonl
from tiny_model import make_tokenizer

USAGE, DEVICE = 2, 8
HEAD = ["ranks", "batch", "steps", "step", "ms", "GEMMs", "else", "all-reduce", "tokens/s", "run"]


def plan(run, *arguments, code=0):
    """Returns the lines by name, the table by ranks, and the ended process."""
    ended = neoloom(0, "plan", "--config", run.config_file, *arguments).expect(code)
    lines = ended.out.splitlines()
    named = {line[:24].strip(): line[24:] for line in lines}
    rows = {}
    for at, line in enumerate(lines):
        if line.split() == HEAD:
            for row in lines[at + 1 :]:
                ranks, batch, steps, step, gemms, rest, all_reduce, tokens = map(float, row.split()[:8])
                rows[int(ranks)] = {"batch": batch, "steps": steps, "step": step, "gemms": gemms, "rest": rest,
                                    "all_reduce": all_reduce, "tokens": tokens}
    return named, rows, ended


@pytest.fixture
def run(tmp_path, data, cache):
    """53 rows, micro-batches of 2 and one a step for each rank, so that the batch grows with the ranks."""
    config = make_config("causal_lm", data, cache, "bfloat16")
    del config["runtime"]["global_batch_size"]
    return Run(tmp_path / "run", config)


def test_a_gpu_of_the_table_is_planned_without_one(run):
    named, rows, _ = plan(run, "--ranks", 16, "--ranks_per_node", 8, "--device", "h100")
    assert named["device"].startswith("h100 (NVIDIA H100 SXM): 80 GB, 3350 GB/s, 67 TFLOP/s in fp32 and 989 in bf16")
    assert named["device"].endswith("as its data sheet states")
    assert named["machines"].startswith("2, with a GPU for each rank, with 8 ranks each")
    assert "budget 64.00 GB, 80 % of 80 GB" in named["memory of a rank"]
    assert {"frozen weights", "training state", "micro-step", "bytes per all-reduce"} <= set(named)
    assert named["largest micro-batch"].startswith("all 53 samples fit in the budget")
    assert re.match(r"[\d.]+ s for all steps, at \d+ tokens/s$", named["expected time"])
    assert "assumed: 64 % of the 989 TFLOP/s in bfloat16" in named["GEMMs"]
    assert named["everything else"].startswith("assumed: memory traffic at the 3350 GB/s that the data sheet states")
    assert named["all-reduce"].startswith("stated: links of 100 Gbit/s with 10 us")

    assert sorted(rows) == [1, 8, 16, 64, 512]
    assert [rows[ranks]["batch"] for ranks in (1, 8, 16)] == [2, 16, 32]
    assert [rows[ranks]["steps"] for ranks in (1, 8, 512)] == [27 * 3, 4 * 3, 3]
    assert rows[1]["all_reduce"] == 0 < rows[8]["all_reduce"] < rows[512]["all_reduce"]
    step = re.match(r"([\d.]+) ms: GEMMs ([\d.]+), everything else ([\d.]+), all-reduce ([\d.]+)$", named["expected step"])
    assert [float(text) for text in step.groups()] == [rows[16][key] for key in ("step", "gemms", "rest", "all_reduce")]
    for row in rows.values():
        assert row["step"] == pytest.approx(row["gemms"] + row["rest"] + row["all_reduce"], abs=0.02)
        assert (row["gemms"], row["rest"]) == (rows[1]["gemms"], rows[1]["rest"]), "a rank has one micro-batch a step"


def test_a_fixed_global_batch_divides_its_micro_batches(tmp_path, data, cache):
    run = Run(tmp_path / "run", make_config("causal_lm", data, cache, "bfloat16"))
    _, rows, _ = plan(run, "--device", "cuda", "--gflops", 1, "--memory_gb", 10)
    assert {row["steps"] for row in rows.values()} == {15} and {row["batch"] for row in rows.values()} == {12}
    assert rows[1]["gemms"] == pytest.approx(6 * rows[8]["gemms"], rel=0.01), "six micro-batches, the most on one rank"


def test_the_network_and_the_rate_are_as_stated(run):
    described = ("--device", "cuda", "--gflops", 1, "--memory_gb", 10)
    named, rows, _ = plan(run, *described)
    assert named["GEMMs"] == "1 GFLOP/s, stated by --gflops" and "80 % of 10 GB" in named["memory of a rank"]
    _, faster, _ = plan(run, "--device", "cuda", "--gflops", 2, "--memory_gb", 10)
    assert rows[1]["gemms"] == pytest.approx(2 * faster[1]["gemms"], rel=0.01)
    named, slow, _ = plan(run, *described, "--link_gbps", 1, "--latency_us", 1000)
    assert named["all-reduce"].startswith("stated: links of 1 Gbit/s with 1000 us")
    all_reduced = int(named["bytes per all-reduce"])
    assert slow[8]["all_reduce"] == pytest.approx(6.0 + 1e3 * 2 * 7 / 8 * 8 * all_reduced / 1e9, abs=0.01)


def test_a_cpu_has_a_stated_rate_and_its_ranks_cores_of_their_own(run):
    named, rows, _ = plan(run, "--device", "cpu", "--gflops", 100, "--memory_gb", 1000, "--ranks", 1000, "--ranks_per_node", 1000)
    assert named["GEMMs"].endswith("stated by --gflops") and named["everything else"].startswith("assumed: 15 % of the GEMMs")
    assert "1000 ranks of 1 thread need 1000 cores" in named["warning"]
    assert "a rank's share of 80 % of 1000 GB" in named["memory of a rank"]
    assert rows[1]["gemms"] == rows[1000]["gemms"], "a rank's rate is never divided"


def test_a_device_that_is_not_known_or_too_small_is_refused(run):
    _, _, ended = plan(run, "--device", "h800", code=USAGE)
    assert_one_message(ended, '"h800"', "cpu, a10, a30, a40, a100-40, a100-80,", "l40s", "--gflops X --memory_gb Y")
    assert_one_message(plan(run, "--device", "cuda", code=USAGE)[2], "also give --gflops and --memory_gb")
    assert_one_message(plan(run, "--gflops", "0", code=USAGE)[2], "a number above 0")
    assert_one_message(plan(run, "--device", "h100", "--measure", code=USAGE)[2], "GEMM rates are measured on CPUs only")
    assert_one_message(plan(run, "--device", "h100", "--memory_gb", "0.001", code=DEVICE)[2], "a rank would need")


def test_the_largest_micro_batch_is_the_one_that_fits(run):
    def planned(size, memory_gb, code=0):
        return plan(run, "--device", "h100", "--memory_gb", memory_gb, "--set",
                    f"trainer_config.per_device_train_batch_size={size}", "--set",
                    "trainer_config.gradient_checkpointing=false", code=code)

    needed = float(re.match(r"([\d.]+) MB", planned(20, 1)[0]["memory of a rank"])[1])
    memory_gb = 1e-3 * (needed + 0.005) / 0.8
    largest = planned(2, memory_gb)[0]["largest micro-batch"]
    size = int(largest.split()[0])
    assert 20 <= size < 53, largest
    assert int(re.search(r"; (?:all )?(\d+) with gradient checkpointing", largest)[1]) > size
    planned(size, memory_gb)
    assert_one_message(planned(size + 1, memory_gb, code=DEVICE)[2], f"for {size + 1} samples")


def test_a_gpu_without_stated_rates_says_how_to_state_them(run):
    named, rows, _ = plan(run, "--set", "runtime.device=cuda")
    assert named["expected time"].startswith("unknown (GEMM rates are measured on CPUs only; --device NAME states them: a10")
    assert not rows


SHAPES = {"125m": (768, 12, 12), "1_3b": (2048, 24, 16), "2_7b": (2560, 32, 20)}
PUBLISHED = [path for path in sorted((SOURCE / "configs").glob("gpt_neo_*.yaml")) if any(size in path.name for size in SHAPES)]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with the shapes of the published models, without weights, and 1,000 rows longer than any max_length."""
    folder = tmp_path_factory.mktemp("published")
    for size, (hidden_size, layers, heads) in SHAPES.items():
        (folder / size).mkdir()
        make_tokenizer(folder / size)
        (folder / size / "config.json").write_text(json.dumps({
            "model_type": "gpt_neo", "hidden_size": hidden_size, "num_layers": layers, "num_heads": heads,
            "vocab_size": 50257, "max_position_embeddings": 2048, "window_size": 256, "bos_token_id": 50256,
            "eos_token_id": 50256, "attention_types": [[["global", "local"], layers // 2]],
            "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}))
    text = "the quick brown fox " * 300
    rows = [{"text": text, "label": "ab"[i % 2], "labels": ["a", "b"][: i % 3], "score": i, "instruction": f"say {i}",
             "input": "", "output": text, "messages": [{"role": "user", "content": f"say {i}"},
                                                       {"role": "assistant", "content": text}]} for i in range(1000)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


IDLE = ("a step has 2 micro-batches of 2, so 1 of the 3 ranks has nothing to do: use 2 ranks; or, for a new run, raise "
        "runtime.global_batch_size to 6 or lower trainer_config.per_device_train_batch_size to 1")


def test_plan_and_train_say_that_ranks_have_nothing_to_do(tmp_path, data, cache):
    run = Run(tmp_path / "run", make_config("causal_lm", data, cache), trainer_config={"max_steps": 1}, runtime={"global_batch_size": 4})
    assert plan(run, "--ranks", 3)[0]["warning"] == IDLE
    assert "nothing to do" not in plan(run, "--ranks", 2)[2].out
    trained = run.train(3).expect(0)
    assert IDLE in trained.out + trained.err
    assert IDLE in [event["message"] for event in run.events("warning")]


def test_tokenising_shows_how_far_it_is(run, tmp_path):
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"call now {i}"} for i in range(600)])
    words = ("--config", run.config_file, "--set", f"data.train={rows}", "--set", "logging.progress=bar")
    for command in (("plan",), ("train", "--dry-run")):
        ended = neoloom(0, *command, *words).expect(0)
        assert "tokenising" in ended.err and "tokenising" not in ended.out


def test_what_the_times_do_not_count_is_said(run):
    assert "attention_dropout" not in plan(run)[2].out
    said = plan(run, "--set", "model_config.attention_dropout=0.1")[0]["attention_dropout"]
    assert said.startswith("0.1: attention computes whole matrices of scores")


def test_an_eval_delay_beyond_the_end_is_told(tmp_path, data, cache):
    for strategy, delay, unit, end in (("steps", 7, "steps", "4"), ("epoch", 7, "epochs", "0.8")):
        run = Run(tmp_path / strategy, make_config("classification", data, cache),
                  trainer_config={"max_steps": 4, "eval_strategy": strategy, "eval_delay": delay})
        text = f"trainer_config.eval_delay: 7 {unit} are more than the run has ({end}), so nothing is evaluated"
        assert text in plan(run)[2].out and text in run.train(0).expect(0).err
    run = Run(tmp_path / "reached", make_config("classification", data, cache), trainer_config={"max_steps": 4, "eval_delay": 4})
    assert "eval_delay" not in plan(run)[2].out


@pytest.mark.parametrize("config", PUBLISHED, ids=lambda path: path.stem)
def test_the_head_of_a_configuration_says_what_plan_says_of_an_h100(config, published):
    """To the digits that the head has, for an epoch."""
    head = " ".join(line[2:] for line in config.read_text().splitlines() if line.startswith("# "))
    memory_gb, seconds = re.search(r"1,000 rows of max_length tokens: ([\d.]+) GB and ([\d.]+) s on one H100", head).groups()
    model = next(published / size for size in SHAPES if size in config.name)
    rows = published / "rows.jsonl"
    values = {"model_config.pretrained_model_name": model, "data.train": rows, "data.validation": rows,
              "runtime.cache_dir": published / "cache"}
    sets = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    out = neoloom(0, "plan", "--config", config, "--device", "h100", *sets).expect(0).out
    needed, unit = re.search(r"^memory of a rank +([\d.]+) (.B)", out, re.M).groups()
    assert float(needed) * (1 if unit == "GB" else 1e-3) == pytest.approx(float(memory_gb), abs=0.051)
    steps, steps_of_epoch = map(int, re.search(r"^steps +(\d+) \((\d+) per epoch", out, re.M).groups())
    run_seconds = float(re.search(r"^expected time +([\d.]+) s for all steps", out, re.M)[1])
    assert run_seconds * steps_of_epoch / steps == pytest.approx(float(seconds), abs=0.051)

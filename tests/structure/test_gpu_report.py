# SPDX-License-Identifier: Apache-2.0
"""The report of a GPU, without one: its budgets, what it does when a section overruns, fails or is missing, its bundle, and
a rehearsal of all of it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest
import torch

SOURCE = pathlib.Path(os.environ["NEOLOOM_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["NEOLOOM_BUILD_DIR"])
sys.path[:0] = [str(SOURCE / "tests" / "bench"), str(SOURCE / "tests" / "support")]

import device  # noqa: E402
import gpu_bundle  # noqa: E402
import gpu_report  # noqa: E402
import gpu_sections  # noqa: E402
import gpu_steps  # noqa: E402
import gpu_tests  # noqa: E402
import limit  # noqa: E402
import sizes  # noqa: E402
from gpu_sections import GpuSection, Output  # noqa: E402
from gpu_tree import Tree, WrongBundle  # noqa: E402
from report import Section  # noqa: E402


# ---- budgets and order

def test_all_budgets_and_the_end_of_each_section_fit_into_eight_minutes():
    items = gpu_sections.sections()
    whole = gpu_sections.START_SECONDS + sum(map(gpu_sections.at_least_seconds, items)) + gpu_report.END_SECONDS
    assert whole <= gpu_sections.TOTAL_SECONDS == 480


def test_sections_come_in_the_order_of_their_worth():
    assert [item.name for item in gpu_sections.sections()] == [
        "doctor", "tests", "steps", "profile", "attention", "gemms", "kernels", "memcheck", "racecheck"]


def test_a_program_with_a_budget_of_its_own_ends_before_its_section():
    tree = Tree.at(SOURCE, BUILD)
    for item in gpu_sections.sections():
        words = list(map(str, item.command(tree, pathlib.Path("work"), item.seconds)))
        if "--seconds" in words:
            assert float(words[words.index("--seconds") + 1]) <= item.seconds - 3, item.name


# ---- sections that do not go well

def item_of(name, script, seconds=20, needs=(), show=gpu_sections.show_text):
    return GpuSection(name, name.capitalize(), seconds, needs, lambda tree, work, seconds: ["bash", "-c", script], show)


def run(tmp_path, monkeypatch, *items, tree=None, total=None):
    monkeypatch.setattr(gpu_report, "sections", lambda: list(items))
    tree = tree or Tree(tmp_path, tmp_path, {})
    into = gpu_report.Report(tmp_path / "report", False, tree)
    if total is not None:
        monkeypatch.setattr(gpu_report, "TOTAL_SECONDS", total)
    gpu_report.run_sections(tree, [], tmp_path, False, into, time.monotonic())
    return into, json.loads((tmp_path / "report.json").read_text())["sections"]


def processes_with(word):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path] if word in path.read_bytes().decode(errors="replace") else []
        except OSError:
            continue
    return found


def test_a_section_that_overruns_is_ended_and_named_and_the_next_one_runs(tmp_path, monkeypatch):
    begin, nap = time.monotonic(), f"613.{os.getpid()}"  # no other process sleeps as long
    slow = item_of("slow", f"echo measured so far; sleep {nap} & sleep {nap}", seconds=0.5)
    into, found = run(tmp_path, monkeypatch, slow, item_of("next", "echo well"), total=26)
    assert time.monotonic() - begin < 10
    assert found["slow"]["state"].startswith("FAILED: ended after") and found["next"]["state"] == "passed"
    assert "measured so far" in into.markdown() and "well" in into.markdown()
    assert into.failed
    assert not processes_with(nap)


def test_a_section_that_ignores_the_request_to_end_is_killed(tmp_path, monkeypatch):
    deaf = item_of("deaf", "trap '' TERM; while :; do sleep 0.1; done")
    _, found = run(tmp_path, monkeypatch, deaf, total=4)
    assert found["deaf"]["state"].startswith("FAILED: ended after") and found["deaf"]["seconds"] < 8


def test_what_a_section_leaves_running_ends_with_it(tmp_path, monkeypatch):
    nap = f"617.{os.getpid()}"
    run(tmp_path, monkeypatch, item_of("leaves", f"sleep {nap} & echo well"))
    assert not processes_with(nap)


def test_a_section_that_fails_is_named_with_its_errors_and_the_next_one_runs(tmp_path, monkeypatch):
    into, found = run(tmp_path, monkeypatch, item_of("bad", "echo why >&2; exit 3"), item_of("next", "true"))
    assert found["bad"]["state"] == "FAILED: exit code 3" and found["next"]["state"] == "passed"
    assert "why" in into.markdown() and into.failed


def test_output_of_another_shape_fails_its_section_alone(tmp_path, monkeypatch):
    odd = item_of("odd", """echo '{"case": "a", "milliseconds": 1}'""", show=gpu_sections.show_candidates)
    into, found = run(tmp_path, monkeypatch, odd, item_of("next", "true"))
    assert found["odd"]["state"].startswith("FAILED") and "cannot be read" in into.markdown()
    assert found["next"]["state"] == "passed"


def test_a_missing_part_is_skipped_by_name(tmp_path, monkeypatch):
    needs = ("program kernel_probe", "module no_such_module", "compute-sanitizer")
    monkeypatch.setattr(Tree, "sanitizer", lambda self: None)
    into, found = run(tmp_path, monkeypatch, item_of("kernels", "true", needs=needs), item_of("next", "true"))
    assert found["kernels"]["state"] == "skipped: kernel_probe, no_such_module, compute-sanitizer missing"
    assert not into.failed


def test_no_section_begins_after_the_eight_minutes(tmp_path, monkeypatch):
    _, found = run(tmp_path, monkeypatch, item_of("late", "true"), total=0)
    assert found["late"]["state"] == "skipped: no time left"


def test_a_section_gets_what_the_others_leave(tmp_path, monkeypatch):
    gone = item_of("gone", "true", seconds=30, needs=("program nothing",))
    into, _ = run(tmp_path, monkeypatch, item_of("first", "true", seconds=10), gone, item_of("last", "true", seconds=10), total=60)
    allowed = {row[0]: row[3] for row in into.rows}
    assert 43 <= float(allowed["first"]) <= 45  # without 12 of the last one and 3 for the end
    assert 54 <= float(allowed["last"]) <= 57


def test_the_report_names_no_folder_of_the_machine(tmp_path, monkeypatch):
    into, _ = run(tmp_path, monkeypatch, item_of("names", f"echo {SOURCE}/README.md {sys.prefix}/lib {pathlib.Path.home()}/x"))
    assert "./README.md PREFIX/lib ~/x" in into.markdown()


def test_each_section_is_in_the_report_before_the_next_begins(tmp_path, monkeypatch):
    first = item_of("first", "echo one")
    second = item_of("second", f"cat {tmp_path}/report.md")
    into, _ = run(tmp_path, monkeypatch, first, second)
    assert "| first | passed |" in into.parts["second"][0].markdown()


def test_without_a_gpu_only_a_rehearsal_runs(tmp_path):
    if gpu_report.has_gpu():
        pytest.skip("this machine has a GPU")
    done = subprocess.run([sys.executable, SOURCE / "tests/bench/gpu_report.py", "--output", tmp_path / "report"],
                          capture_output=True, text=True)
    assert done.returncode == 2 and "no GPU" in done.stderr and "--rehearse" in done.stderr
    assert not list(tmp_path.iterdir())


# ---- what the tables say

def candidate(case, name, milliseconds, **more):
    return json.dumps(dict(case=case, candidate=name, flops=1e9, milliseconds=milliseconds, tflops=1.0, relative_error=1e-3,
                           equal_bits=True) | more)


def test_candidates_are_compared_with_the_first_and_by_equal_bits():
    lines = [json.dumps(dict(machine=dict(device="a GPU"))), candidate("hd 64", "today", 2.0),
             candidate("hd 64", "quick", 0.5, equal_bits=False), candidate("hd 64", "sure", 1.0),
             json.dumps(dict(case="hd 64", candidate="none", flops=1.0, error="no plan")),
             json.dumps(dict(left_out=["hd 128: today"])), '{"case": "cut o']
    section = Section("Attention")
    gpu_sections.show_candidates(section, Output("\n".join(lines)))
    text = section.markdown()
    assert "| hd 64 | today: 2.000 | quick: 0.500 | 4.00 | 1.00 | sure: 1.000 | 1.0e-03 | 1 |" in text
    assert "no plan" in text and "device a GPU" in text and "hd 128: today" in text


def test_tests_are_counted_also_when_they_were_ended():
    text = """collecting ... collected 48 items / 40 deselected / 8 selected
tests/e2e/test_gpu.py::test_a PASSED [ 12%]
collecting ... collected 48 items / 40 deselected / 8 selected
tests/e2e/test_gpu.py::test_b[classification-bfloat16 x] FAILED [ 25%]
FAILED tests/e2e/test_gpu.py::test_b[classification-bfloat16 x] - assert 1 == 2
tests/e2e/test_gpu.py::test_c """
    section = Section("Tests")
    gpu_sections.show_tests(section, Output(text))
    assert section.data["passed"] == 1 and section.data["collected"] == 16
    assert section.data["failed_tests"] == ["tests/e2e/test_gpu.py::test_b[classification-bfloat16 x]"]
    assert "assert 1 == 2" in section.markdown()


def test_every_case_of_the_gpu_tests_has_a_process():
    text = (SOURCE / "tests/e2e/test_gpu.py").read_text()
    cases = text[text.index("CASES = [") : text.index("def gpu_config")]
    assert tuple("-".join(pair) for pair in eval(cases.split("=", 1)[1])) == gpu_tests.CASES  # noqa: S307


def gemm(n, k, m, count, milliseconds, candidate="at::mm", **more):
    return dict(case=f"1.3B {n} rows, gemm {n} x {k} x {m}", candidate=candidate, flops=2.0 * n * k * m,
                shape=dict(model="1.3B", rows=n, n=n, k=k, m=m, backward=False, count=count, rank=0),
                **dict(dict(milliseconds=milliseconds) if milliseconds else {}, **more))


ROW = device.Row("1.3B", "causal_lm", 8, 1024)


def test_the_limit_is_the_time_of_all_gemms_at_the_best_rates():
    lines = [dict(machine={}), gemm(8192, 2048, 2048, 10, 2.0), gemm(8192, 2048, 2048, 10, 1.0, "cublasLt"),
             gemm(8192, 2048, 8192, 3, 4.0), dict(left_out=[])]
    found = limit.of(ROW, lines)
    flops = 2.0 * 8192 * 2048 * (10 * 2048 + 3 * 8192)
    others = 8192 * (ROW.attention_flops_per_token + 6 * 24 * 2 * 2 * 8 * 2048)
    assert found["gemm_seconds"] == pytest.approx(10 * 1e-3 + 3 * 4e-3)
    assert found["seconds"] == pytest.approx(0.022 * (flops + others) / flops)


@pytest.mark.parametrize("lines", [
    [], [gemm(8192, 2048, 2048, 10, 2.0), dict(left_out=["another"])],
    [gemm(8192, 2048, 2048, 10, 2.0), gemm(8192, 2048, 8192, 3, None, error="no algorithm")],
], ids=["no probe", "left out", "failed"])
def test_a_limit_with_a_gemm_missing_is_unknown(lines):
    assert limit.of(ROW, lines) is None


def profile_line(found_limit):
    groups = {name: dict(seconds=0.01, runs=4.0) for name, _ in gpu_sections.GROUPS}
    return dict(case=ROW.name, step_seconds=0.1, idle_seconds=0.002, groups=groups, runs=36.0, longest=[["gemm", 0.01]],
                limit=found_limit)


@pytest.mark.parametrize("found,words", [(dict(seconds=0.08, mean_tflops=600.0), "80 % of the limit"),
                                         (None, "limit: unknown")])
def test_the_profile_says_the_share_of_the_limit_or_that_it_is_unknown(found, words):
    section = Section("Profile")
    gpu_sections.show_profile(section, Output(json.dumps(profile_line(found))))
    assert words in section.markdown() and "| attention | 10.00 | 4 | 10.0 % |" in section.markdown()


def test_without_transformers_its_side_is_skipped_by_name(monkeypatch, capsys):
    monkeypatch.setattr(gpu_steps, "missing_modules", lambda: ["peft"])
    monkeypatch.setattr(gpu_steps, "measured", lambda context, row, side, found: found.setdefault(
        side, dict(tokens_per_s=1.0, tflops=1.0, seconds=dict(median=1.0))))
    assert gpu_steps.take_rows(None, [gpu_steps.TINY], 60) == 0
    section = Section("Steps")
    gpu_sections.show_steps(section, Output(capsys.readouterr().out))
    assert "Skipped: HF best, as peft is missing here." in section.markdown()
    assert "| tiny causal LM 2 x 64 | neoloom | 1 |" in section.markdown()


def test_rows_without_time_are_named(monkeypatch, capsys):
    monkeypatch.setattr(gpu_steps, "missing_modules", lambda: ["peft"])
    assert gpu_steps.take_rows(None, [gpu_steps.TINY], -1) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == dict(left_out=["tiny causal LM 2 x 64: neoloom"])


# ---- models without transformers

@pytest.mark.parametrize("size", sizes.SHAPES)
def test_the_models_have_the_tensors_of_transformers(size):
    import transformers

    with torch.device("meta"):
        config = transformers.GPTNeoConfig.from_dict(sizes.config(size))
        model = transformers.GPTNeoForCausalLM(config)
    expected = {name: tuple(value.shape) for name, value in model.named_parameters()}  # a tied head is not there
    assert dict(sizes.tensor_shapes(sizes.config(size))) == expected


def test_a_model_in_shards_loads_in_transformers(tmp_path, monkeypatch):
    import transformers

    monkeypatch.setattr(sizes, "SHARD_BYTES", 1 << 20)
    folder = sizes.make_model_folder(tmp_path / "model", "tiny", "bfloat16")
    model, found = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    assert model.dtype == torch.bfloat16 and len(list(folder.glob("*.safetensors"))) > 1
    assert model.transformer.h[1].attn.attention.k_proj.weight.float().std().item() == pytest.approx(0.02, rel=0.05)


# ---- the bundle

def test_a_part_that_is_too_large_is_refused_with_its_largest_file(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "small").write_text("small")
    (tmp_path / "tree" / "huge").write_bytes(os.urandom(200_000))
    with pytest.raises(gpu_bundle.BundleError, match=r"part core has 0.2 MiB, more than 0; its largest files: huge"):
        gpu_bundle.pack(tmp_path / "tree", tmp_path / "out", "core", {}, quick=True, most_bytes=100_000)
    assert not list((tmp_path / "out").iterdir())


def unpacked(tmp_path, **manifest):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("as packed")
    defaults = dict(torch=torch.__version__.split("+")[0], glibc="2.17", modules=[])
    part = gpu_bundle.pack(tmp_path / "tree", tmp_path / "out", "core", defaults | manifest, quick=True)
    gpu_bundle.unpack(part, tmp_path / "there")
    return Tree.at(tmp_path / "there" / gpu_bundle.TOP)


def test_a_bundle_for_this_machine_is_taken(tmp_path):
    tree = unpacked(tmp_path)
    tree.check()
    assert tree.left_out_parts() == {"hf": "missing", "sanitizer": "missing", "cudnn-graph": "missing", "cudnn-engines": "missing"}


@pytest.mark.parametrize("manifest,words", [(dict(torch="2.10.0"), "made for torch 2.10.0"), (dict(glibc="9.99"), "needs glibc 9.99")])
def test_a_bundle_for_another_machine_is_refused_in_one_sentence(tmp_path, manifest, words):
    with pytest.raises(WrongBundle) as refused:
        unpacked(tmp_path, **manifest).check()
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_changed_on_its_way_is_named(tmp_path):
    tree = unpacked(tmp_path)
    (tree.root / "file").write_text("changed")
    with pytest.raises(WrongBundle, match=r"part core is not as it was packed \(file\)"):
        tree.check()


def test_a_program_linked_with_another_torch_is_refused():
    with pytest.raises(gpu_bundle.BundleError, match="linked with another torch"):
        gpu_bundle.check_linked(BUILD / "neoloom", pathlib.Path("/another/prefix"))


def test_libraries_from_outside_the_bundle_are_named(tmp_path):
    (tmp_path / "build" / "programs").mkdir(parents=True)
    (tmp_path / "build" / "libraries").mkdir()
    shutil.copy(BUILD / "neoloom", tmp_path / "build" / "programs")
    foreign = {name for _, name, _ in Tree.at(tmp_path).foreign_libraries()}
    assert any(name.startswith("libmpi.") for name in foreign)
    assert not any(name.startswith(("libtorch", "libc10", "libc.", "libstdc++")) for name in foreign)


def test_the_rehearsal_unpacks_a_bundle_and_runs_out_of_it(tmp_path):
    command = [sys.executable, SOURCE / "tests/bench/gpu_report.py", "--rehearse", "--build", BUILD, "--output", tmp_path / "report"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "report.md").read_text().splitlines()[0] == gpu_report.REHEARSED
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["rehearsed"] and found["sections"]["libraries"]["foreign"] == []
    for name in ("libraries", "doctor", "tests", "steps"):
        assert found["sections"][name]["state"] == "passed", name
    lines = found["sections"]["steps"]["lines"]
    assert [line["side"] for line in lines if "side" in line] == ["neoloom", f"HF {gpu_steps.HF_VARIANT}"]
    assert list(found["sections"])[2:] == [item.name for item in gpu_sections.sections()]

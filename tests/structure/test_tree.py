# SPDX-License-Identifier: Apache-2.0
"""Rules of the tree that no compiler checks: who includes whom, where foreign headers may appear, no traces of the
machines it was written on, a common format, documents that name what exists."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(os.environ["NEOLOOM_SOURCE_DIR"])
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)
MAX_LINES = 500


def tracked(*suffixes):
    """Returns files under version control and those about to be, or all files where there is no git."""
    command = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, text=True)
    if listing.returncode == 0:
        paths = [ROOT / line for line in listing.stdout.splitlines()]
    else:
        paths = [path for path in ROOT.rglob("*") if not path.relative_to(ROOT).parts[0].startswith(("build", ".git", "runs"))]
    return sorted(path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes))


SOURCES = tracked(".h", ".cpp")
OWN = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in ("runtime", "model", "data", "launch")]

# Who may include whom. A room is named by its folder. train may include every other room of runtime, launch every
# room. Of model, others include the contract (the root) and the rooms named here.
DATA = {"data", "data/batching", "data/readers", "data/store", "data/tokenizer"}
RUNTIME = {f"runtime/{room}" for room in ("core", "comm", "cuda", "cuda/kernels", "hdf5", "optim", "checkpoint", "metrics", "train")}
CORE = {"runtime/core"}
BELOW_CUDA = CORE | {"model", "model/batch", "model/cpu"}
BELOW_GPT_NEO = BELOW_CUDA | {"model/cuda", "model/lora"}
BELOW_COMMANDS = RUNTIME | DATA | {"launch", "launch/config", "launch/system", "model", "model/checkpoints", "model/weight_cache"}
ARROWS = {
    "runtime/core": set(),
    "runtime/comm": CORE,
    "runtime/cuda": CORE | {"runtime/comm"},
    "runtime/cuda/kernels": {"runtime/cuda"},
    "runtime/hdf5": CORE,
    "runtime/optim": CORE,
    "runtime/metrics": CORE,
    "runtime/checkpoint": CORE | {"runtime/hdf5"},
    "runtime/train": RUNTIME | {"data", "data/batching", "model", "model/batch"},
    **{room: CORE | DATA | {"runtime/hdf5"} for room in DATA},
    "model": CORE,
    "model/batch": CORE | {"model"},
    "model/cpu": CORE | {"model", "model/batch"},
    "model/cuda": BELOW_CUDA,
    "model/lora": BELOW_CUDA | {"model/cuda"},
    "model/gpt_neo": BELOW_GPT_NEO,
    "model/memory": BELOW_GPT_NEO | {"model/gpt_neo"},
    "model/checkpoints": CORE | {"model", "model/lora", "model/gpt_neo"},
    "model/weight_cache": CORE | {"model", "model/gpt_neo", "model/checkpoints"},
    "model/generation": CORE | {"model"},
    "launch/config": RUNTIME | {"data", "model", "model/lora", "launch"},
    "launch/system": RUNTIME | {"model"},
    "launch/job": BELOW_COMMANDS | {"model/lora"},
    "launch/planning": BELOW_COMMANDS | {"launch/job", "model/lora", "model/memory", "model/cpu"},
    "launch/selftest": BELOW_GPT_NEO | RUNTIME | {"launch/system", "model/gpt_neo"},
    "launch/report": CORE | {"runtime/metrics", "launch/config"},
    "launch/monitor": RUNTIME | {"launch", "launch/job", "launch/report"},
    "launch/commands": BELOW_COMMANDS | {"launch/job", "launch/planning", "launch/selftest", "launch/report", "launch/monitor", "model/generation", "model/lora"},
    "launch": RUNTIME | DATA | {"launch/commands", "launch/config", "launch/job", "model/generation"},
}
# Foreign headers and the rooms whose .cpp files may include them. No .h may.
FOREIGN = {
    r"mpi\.h$": {"comm", "launch"},
    r"(nccl|cuda_runtime|cuda_runtime_api|cuda)\.h$": {"cuda"},
    r"(hdf5|H5.*public)\.h$": {"hdf5", "checkpoint", "data"},
    r"yaml-cpp/": {"launch"},
    r"CLI/": {"launch"},
    r"pcre2\.h$": {"core", "data"},
    r"openssl/": {"core"},
    r"(arrow|parquet)/": {"data"},
    r"(zlib|zstd)\.h$": {"data"},
    r"curl/": {"model"},
}
# These declare thousands of operators or the whole of C++'s front end. Single-operator headers are enough.
TOO_LARGE = re.compile(r"^(torch/torch\.h|torch/all\.h|torch/extension\.h|ATen/ATen\.h|ATen/Functions\.h)$")


def room_of(path):
    return str(pathlib.PurePath(path).parent)


def area_of(path):
    """Returns the part of the tree: a room of runtime, or data, model, launch."""
    parts = pathlib.PurePath(path).parts
    return parts[1] if parts[0] == "runtime" else parts[0]


def includes(path):
    return INCLUDE.findall(path.read_text())


def test_the_rooms_are_found():
    assert {room_of(path.relative_to(ROOT)) for path in OWN} == set(ARROWS)


def test_rooms_include_only_what_their_arrows_allow():
    wrong = []
    for path in OWN:
        room = room_of(path.relative_to(ROOT))
        for quote, name in includes(path):
            if quote != '"':
                continue
            if not (ROOT / name).is_file():
                wrong.append(f"{path.relative_to(ROOT)}: \"{name}\" is not a path from the repository root")
            elif room_of(name) not in ARROWS.get(room, set()) | {room}:
                wrong.append(f"{path.relative_to(ROOT)}: {room} may not include {name}")
    assert not wrong, "\n".join(wrong)


def test_foreign_headers_stay_in_the_sources_of_their_rooms():
    wrong = []
    for path in OWN:
        room = area_of(path.relative_to(ROOT))
        for _, name in includes(path):
            for pattern, rooms in FOREIGN.items():
                if re.search(pattern, name) and not (ROOT / name).is_file() and (path.suffix == ".h" or room not in rooms):
                    wrong.append(f"{path.relative_to(ROOT)}: <{name}>")
    assert not wrong, "\n".join(wrong)


def test_whole_torch_headers_are_not_included():
    wrong = [f"{path.relative_to(ROOT)}: {name}" for path in SOURCES for _, name in includes(path) if TOO_LARGE.match(name)]
    assert not wrong, "\n".join(wrong)


def test_sources_include_their_own_header_first():
    wrong = []
    for path in OWN:
        own = path.with_suffix(".h")
        if path.suffix == ".cpp" and own.is_file():
            found = includes(path)
            if not found or found[0][1] != str(own.relative_to(ROOT)):
                wrong.append(str(path.relative_to(ROOT)))
    assert not wrong, "\n".join(wrong)


# They parse texts that neoloom has just written, or count levels and keys themselves.
PARSED_AS_THEY_ARE = {"runtime/train/resume.cpp", "runtime/metrics/events.cpp", "launch/config/json_events.cpp"}


def test_json_of_others_is_bounded_before_it_is_parsed():
    wrong = []
    for path in OWN:
        text = path.read_text()
        parses = re.search(r"json::(sax_)?parse\(|Json::parse\(", text)
        if parses and "json_excess" not in text and str(path.relative_to(ROOT)) not in PARSED_AS_THEY_ARE:
            wrong.append(f"{path.relative_to(ROOT)}: {parses.group()} without core::json_excess; use core::parse_json")
    assert not wrong, "\n".join(wrong)


CMAKE_VARIABLES = {"NEOLOOM_PYTHON_PREFIX"}
ENVIRONMENT = ("runtime/core/environment.h", "runtime/core/environment.cpp")


def test_only_one_file_touches_the_environment():
    calls = re.compile(r"\b(getenv|secure_getenv|setenv|unsetenv|putenv|clearenv)\b|\benviron\b(?!\")")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}; use runtime/core/environment.h"
        for path in OWN
        if str(path.relative_to(ROOT)) not in ENVIRONMENT
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if calls.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_variables_of_scripts_and_tests_are_in_the_list():
    listed = set(re.findall(r"NEOLOOM_[A-Z_]+", (ROOT / ENVIRONMENT[0]).read_text()))
    wrong = []
    for path in tracked(".h", ".cpp", ".py", ".sh", ".sbatch"):
        unknown = set(re.findall(r"\bNEOLOOM_[A-Z_]+", path.read_text())) - listed - CMAKE_VARIABLES
        wrong += [f"{path.relative_to(ROOT)}: {name} is not in {ENVIRONMENT[0]}" for name in sorted(unknown)]
    assert not wrong, "\n".join(wrong)


def test_headers_have_a_guard_and_files_a_licence_line():
    wrong = []
    for path in tracked(".h", ".cpp", ".c", ".py", ".sh", ".sbatch", ".cmake"):
        if "SPDX-License-Identifier: Apache-2.0" not in "\n".join(path.read_text().splitlines()[:3]):
            wrong.append(f"{path.relative_to(ROOT)}: no SPDX line")
        if path.suffix == ".h" and "#pragma once" not in path.read_text():
            wrong.append(f"{path.relative_to(ROOT)}: no #pragma once")
    assert not wrong, "\n".join(wrong)


def test_no_source_outgrows_one_reading():
    generated = re.compile(r"(generated|ranges)")
    long = [
        f"{path.relative_to(ROOT)}: {count} lines, more than {MAX_LINES}"
        for path in SOURCES
        if (count := path.read_text().count("\n")) > MAX_LINES and not generated.search(path.read_text()[:600])
    ]
    assert not long, "\n".join(long)


def test_nothing_names_the_machine_it_was_written_on():
    # Split, so that this file does not find itself.
    traces = re.compile("|".join(["/wo" + "rk/", "/ro" + "ot/", "/ho" + r"me/[a-z]+/", "index-u" + "rl", "find-l" + "inks"]))
    wrong = []
    for path in tracked():
        if path.name == "LICENSE" or path.suffix in (".bin", ".png", ".safetensors", ".h5", ".gz"):
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            if traces.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not wrong, "\n".join(wrong)


def test_unfinished_work_leaves_no_marks():
    marks = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked(".h", ".cpp", ".c", ".py", ".sh", ".cmake", ".txt", ".yaml", ".md")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_format_is_clang_formats():
    formatter = pathlib.Path(sys.executable).with_name("clang-format")
    program = str(formatter) if formatter.is_file() else shutil.which("clang-format")
    if not program:
        pytest.skip("no clang-format: bash cluster/bootstrap/bootstrap.sh --tests installs it")
    done = subprocess.run([program, "--dry-run", "--Werror", *SOURCES], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"run: clang-format -i on these\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("document", [p.relative_to(ROOT) for p in tracked(".md")], ids=str)
def test_documents_name_paths_that_exist(document):
    """Checks paths in `code`, in links and in pictures: those that begin with a folder or file of the repository."""
    top = {path.relative_to(ROOT).parts[0] for path in tracked()}
    text = (ROOT / document).read_text()
    candidates = set(re.findall(r"`([A-Za-z0-9_.][A-Za-z0-9_./-]*)`", text))
    candidates |= {link for link in re.findall(r"\]\(([^)#:]+)\)", text)}
    candidates |= set(re.findall(r"(?:bash|--config) ([A-Za-z0-9_./-]+)", text))
    candidates |= set(re.findall(r'\b(?:src|srcset)="([^":]+)"', text))
    missing = []
    for name in sorted(candidates):
        here = (ROOT / document).parent / name
        if here.exists() or (ROOT / name).exists():
            continue
        if "/" in name and (name.split("/")[0] in top or name.split("/")[0] in ("bootstrap", "local", "slurm")):
            missing.append(name)
    assert not missing, missing

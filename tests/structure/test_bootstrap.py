# SPDX-License-Identifier: Apache-2.0
"""cluster/bootstrap/bootstrap.sh: quick when nothing is to do, clear when it may not install."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(os.environ["NEOLOOM_SOURCE_DIR"])
BOOTSTRAP = ROOT / "cluster/bootstrap/bootstrap.sh"


def run(*arguments, **variables):
    return subprocess.run(["bash", BOOTSTRAP, *arguments], env=os.environ | variables, capture_output=True, text=True)


def test_the_prefix_is_printed_without_doing_anything(tmp_path):
    done = run("--print-prefix", NEOLOOM_DEPS=str(tmp_path / "deps"))
    assert done.returncode == 0 and done.stdout.startswith(str(tmp_path / "deps"))
    assert list(tmp_path.iterdir()) == []


def test_clones_with_equal_versions_share_a_prefix(tmp_path):
    clone = tmp_path / "clone"
    clone.mkdir()
    shutil.copytree(BOOTSTRAP.parent, clone, dirs_exist_ok=True)
    prefix = lambda folder: subprocess.run(["bash", folder / "bootstrap.sh", "--print-prefix"], capture_output=True, text=True).stdout
    assert prefix(clone) == prefix(BOOTSTRAP.parent)
    requirements = clone / "requirements.txt"
    requirements.write_text(requirements.read_text().replace("torch==", "torch==9."))
    assert prefix(clone) != prefix(BOOTSTRAP.parent)


def test_the_prefix_without_cuda_is_another_one(tmp_path):
    full, cpu = run("--print-prefix").stdout.strip(), run("--print-prefix", "--cpu").stdout.strip()
    assert cpu == f"{full}-cpu" == run("--cpu", "--print-prefix").stdout.strip()
    for option in ("--tests", "--gpu_tools"):
        done = run("--cpu", option, NEOLOOM_DEPS=str(tmp_path / "deps"))
        assert done.returncode == 2 and "--cpu excludes --tests and --gpu_tools" in done.stderr
        assert list(tmp_path.iterdir()) == []


def fake_wheels(folder, lacking):
    """A python3 whose pip makes what the torch wheel has, and an ldd that finds all of libtorch_cpu.so's libraries but one."""
    library = "$(dirname $(dirname $0))/lib/python3.11/site-packages/torch/lib"
    pip = f'case "$*" in *--target*) ;; *"pip install"*) echo "$@" >>{folder}/pip-calls; mkdir -p {library}; touch {library}/libtorch_c{{pu,uda}}.so;; esac'
    scripts = {
        "python3": f'case "$*" in *venv*) mkdir -p "${{@: -1}}/bin"; cp {folder}/prefix-python "${{@: -1}}/bin/python3";; *) echo 3.11;; esac',
        "prefix-python": pip,
        "ldd": f'echo "libcudart.so.13 => {lacking or "/there"}"',
    }
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    for name in ("cp", "touch"):
        (folder / name).symlink_to(shutil.which(name))


@pytest.mark.parametrize("lacking", ["", "not found"])
def test_the_set_up_for_cpus_leaves_cuda_out(tmp_path, lacking):
    path = fake_system(tmp_path / "bin", packages(), identity=0)
    fake_wheels(tmp_path / "bin", lacking)
    clone = shutil.copytree(BOOTSTRAP.parent, tmp_path / "clone")
    script = (clone / "bootstrap.sh").read_text().replace("/usr/bin/python3", "/nowhere/python3")
    (clone / "bootstrap.sh").write_text(script)
    done = subprocess.run(["bash", clone / "bootstrap.sh", "--cpu"], env={"PATH": path, "NEOLOOM_DEPS": str(tmp_path / "deps")},
                          capture_output=True, text=True)
    first = (tmp_path / "bin/pip-calls").read_text().splitlines()[0]
    assert "--no-deps nvidia-cuda-cupti nvidia-cuda-runtime" in first
    (prefix,) = (path for path in (tmp_path / "deps").iterdir() if path.is_dir())
    libraries = sorted(path.name for path in prefix.rglob("*.so"))
    assert libraries == ["libtorch_cpu.so"]
    if lacking:
        assert done.returncode == 2 and "libcudart.so.13 => not found" in done.stderr
        assert not (prefix / ".stamp-runtime").exists()
    else:
        assert done.returncode == 0, done.stderr
        assert (prefix / ".stamp-runtime").exists()


def test_the_libraries_of_cuda_that_a_cpu_needs_are_pinned():
    (names,) = re.findall(r"^cpu_libraries=\((.*)\)", BOOTSTRAP.read_text(), re.MULTILINE)
    for file in ("constraints.txt", "oldest/constraints.txt"):
        pins = {line.split("==")[0] for line in (BOOTSTRAP.parent / file).read_text().splitlines()}
        assert set(names.split()) <= pins, file


def test_other_requirements_have_a_prefix_of_their_own(tmp_path):
    for name in ("requirements.txt", "constraints.txt"):
        (tmp_path / name).write_text("torch==9.0.0\n")
    own = run("--print-prefix").stdout
    assert run("--print-prefix", "--requirements", str(BOOTSTRAP.parent)).stdout == own
    assert run("--print-prefix", "--requirements", str(tmp_path)).stdout not in ("", own)
    assert run("--requirements").returncode != 0


def load_newest():
    spec = importlib.util.spec_from_file_location("newest", BOOTSTRAP.parent / "newest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_pin_moves_to_the_newest_release_and_comments_stay():
    moved = load_newest().moved
    releases = {"torch": "9.1.0", "peft": "0.21.2"}
    assert moved("torch==2.11.0", releases.get) == ("torch==9.1.0", "torch 2.11.0 -> 9.1.0")
    assert moved("peft==0.21.2", releases.get) == ("peft==0.21.2", "peft 0.21.2: the newest")
    assert moved("# a reason", releases.get) == ("# a reason", None)
    line, told = moved("clang-format==14.0.6", releases.get)
    assert line == "clang-format==14.0.6" and "kept" in told


def test_every_requirement_is_a_pin():
    module = load_newest()
    for file in (*module.FILES, "requirements-gpu.txt", "requirements-parquet.txt", "oldest/requirements.txt"):
        for line in (BOOTSTRAP.parent / file).read_text().splitlines():
            assert line.startswith("#") or module.PIN.match(line), f"{file}: {line}"


def test_the_documents_name_the_pinned_versions():
    pins = lambda file: dict(re.findall(r"^([\w.-]+)==(\S+)$", (BOOTSTRAP.parent / file).read_text(), re.MULTILINE))
    runtime, oracles, oldest = pins("requirements.txt"), pins("requirements-tests.txt"), pins("oldest/requirements.txt")
    document = (ROOT / "CONTRIBUTING.md").read_text()
    assert f"LibTorch {runtime['torch']}, transformers {oracles['transformers']}, peft {oracles['peft']} | every change" in document
    assert f"| LibTorch {oldest['torch']}, the same transformers and peft |" in document


def fake_system(folder, installed, identity):
    """A PATH where dpkg-query knows the packages in `installed`, there is no sudo, and id says who is asking."""
    folder.mkdir()
    for name in ("bash", "cat", "cut", "dirname", "env", "flock", "grep", "mkdir", "mktemp", "rm", "sed", "sha256sum", "tail", "tr"):
        (folder / name).symlink_to(subprocess.run(["which", name], capture_output=True, text=True).stdout.strip())
    scripts = {
        "dpkg-query": f'case " {" ".join(installed)} " in *" ${{@: -1}} "*) printf "ii " ;; *) exit 1 ;; esac',
        "apt-get": f'echo "$@" >> {folder}/apt-calls; test ! -e {folder}/offline',
        "id": f"echo {identity}",
    }
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def packages():
    text = (BOOTSTRAP.parent / "packages.txt").read_text()
    return [line for line in re.sub(r"#.*", "", text).split()]


def test_one_line_per_missing_package_and_code_2_without_rights(tmp_path):
    known = [name for name in packages() if name not in ("cmake", "libhdf5-dev")]
    path = fake_system(tmp_path / "bin", known, identity=1000)
    done = run(PATH=path, NEOLOOM_DEPS=str(tmp_path / "deps"))
    assert done.returncode == 2
    missing = [line for line in done.stderr.splitlines() if line.startswith("missing: ")]
    assert missing == ["missing: Debian package cmake", "missing: Debian package libhdf5-dev"]
    assert not (tmp_path / "bin/apt-calls").exists() and not (tmp_path / "deps").exists()


def test_root_installs_what_is_missing_and_nothing_else(tmp_path):
    known = [name for name in packages() if name != "cmake"]
    path = fake_system(tmp_path / "bin", known, identity=0)
    (tmp_path / "bin/offline").touch()
    done = run(PATH=path, NEOLOOM_DEPS=str(tmp_path / "deps"))
    assert done.returncode == 2 and "apt-get update failed" in done.stderr
    calls = (tmp_path / "bin/apt-calls").read_text().splitlines()
    assert calls[0].endswith("install --no-install-recommends cmake")
    assert calls[1].endswith("update")


def test_the_compilers_of_the_checks_are_installed_for_checks_alone(tmp_path):
    path = fake_system(tmp_path / "bin", packages(), identity=1000)
    done = run("--checks", PATH=path, NEOLOOM_DEPS=str(tmp_path / "deps"))
    assert done.returncode == 2
    missing = [line for line in done.stderr.splitlines() if line.startswith("missing: ")]
    assert missing == ["missing: Debian package clang", "missing: Debian package clang-tidy"]


def test_unknown_options_are_refused():
    assert run("--everything").returncode == 2


def test_a_second_call_installs_nothing():
    prefix = run("--print-prefix").stdout.strip()
    if not pathlib.Path(prefix, ".stamp-runtime").is_file():
        pytest.skip("the prefix was not made by bootstrap.sh")
    done = run("--no-system")
    assert done.returncode == 0 and "ready" in done.stderr and "installing" not in done.stderr, done.stderr

# SPDX-License-Identifier: Apache-2.0
"""Makes what gpu_report needs on a machine with a GPU, Python and torch, and nothing else: no compiler, no network.

  bash tests/bench/run.sh gpu_bundle FOLDER                     all parts, for the torch of this checkout
  bash tests/bench/run.sh gpu_bundle FOLDER core --build BUILD  one part, for the torch that BUILD was made for

There, with the parts of FOLDER:

  for part in neoloom-gpu-*.tar.xz; do python3 -m tarfile -e "$part"; done
  bash neoloom-gpu/tests/bench/run.sh gpu_report

Parts: core (neoloom, the GPU tests, step_bench, probes, and their libraries), hf (transformers, peft and what they need
beside torch), sanitizer (compute-sanitizer), cudnn-graph and cudnn-engines (a newer cuDNN for attention_probe; both or
none). Each is at most 64 MiB.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import report
from gpu_tree import PARTS, SYSTEM_LIBRARIES, resolved_libraries, sha256
from report import ROOT

TOP = "neoloom-gpu"  # what every part unpacks to
MOST_BYTES = 64 << 20
REQUIRED = ("neoloom", "libneoloom_cuda.so")
OPTIONAL = ("step_bench", "attention_probe", "gemm_probe", "kernel_probe")
RECORDER = "libkernel_times.so"
TREE = ["tests/bench/*.py", "tests/bench/run.sh", "tests/support/sizes.py", "tests/support/tiny_model.py", "tests/e2e/common.py",
        "tests/e2e/conftest.py", "tests/e2e/runs.py", "tests/e2e/test_gpu.py", "tests/e2e/test_parity_training.py",
        "cluster/local/mpirun.sh", "LICENSE"]
CORE_PACKAGES = {"pytest": "pytest", "safetensors": "safetensors"}  # module: package; they run on every Python
HF_PACKAGES = {"transformers": "transformers", "peft": "peft", "tokenizers": "tokenizers", "h5py": "h5py", "numpy": "numpy"}
SANITIZER = "nvidia-cuda-sanitizer-api==13.0.*"  # of the oldest CUDA that is supported: drivers of CUDA 13.0 run it
CUDNN = {"cudnn-graph": ["libcudnn_graph.so.9"],
         "cudnn-engines": ["libcudnn.so.9", "libcudnn_engines_runtime_compiled.so.9", "libcudnn_heuristic.so.9"]}
PLATFORMS = ["linux_x86_64", "manylinux1_x86_64", "manylinux2014_x86_64", *(f"manylinux_2_{n}_x86_64" for n in range(5, 40))]
WRAPPER = """#!/bin/sh
# Starts the program of this name with the libraries of this bundle and of torch (NL_TORCH_LIBRARIES, or python3's).
here=$(cd "$(dirname "$0")" && pwd)
torch=${NL_TORCH_LIBRARIES:-$(python3 "$here/../tests/bench/gpu_tree.py")} || exit
LD_LIBRARY_PATH="$here/libraries:$torch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/programs/$(basename "$0")" "$@"
"""


class BundleError(Exception):
    """A part cannot be made; the text says why."""


# ---- a part as a file

def part_name(path):
    return path.name.removeprefix(f"{TOP}-").removesuffix(".tar.xz")


def pack(folder, output, name, manifest, quick=False, most_bytes=MOST_BYTES):
    """Writes `folder` with a manifest as a part. Raises BundleError, naming the largest files, if it is too large."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {str(path.relative_to(folder)): sha256(path) for path in files}
    (folder / "parts").mkdir(exist_ok=True)
    (folder / "parts" / f"{name}.json").write_text(
        json.dumps(dict(part=name, commit=report.commit(), **manifest, files=digests), indent=1) + "\n")
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{TOP}-{name}.tar.xz"
    with tarfile.open(path, "w:xz", preset=0 if quick else 6) as tar:
        tar.add(folder, TOP)
    size = path.stat().st_size
    if size > most_bytes:
        path.unlink()
        largest = sorted(files, key=lambda file: -file.stat().st_size)[:3]
        names = ", ".join(f"{file.relative_to(folder)} ({file.stat().st_size / 2**20:.0f} MiB unpacked)" for file in largest)
        raise BundleError(f"part {name} has {size / 2**20:.1f} MiB, more than {most_bytes / 2**20:.0f}; its largest files: "
                          + names)
    return path


def unpack(path, folder):
    """Unpacks as the documented command does."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "tarfile", "-e", str(path), str(folder)], check=True)


# ---- core

def prefix_of(build):
    """Returns the Python prefix whose torch a build folder was configured with."""
    cache = build / "CMakeCache.txt"
    match = re.search(r"^NEOLOOM_PYTHON_PREFIX:\w+=(.+)$", cache.read_text(), re.MULTILINE) if cache.exists() else None
    if match is None:
        raise BundleError(f"{build} is no build folder of neoloom: its CMakeCache.txt names no Python prefix")
    return Path(match[1])


def site_packages(prefix):
    return next(prefix.glob("lib/python3*/site-packages"))


def version_in(site, package):
    """Returns the version of a package in another Python's folder."""
    name = re.sub(r"[-_.]+", "-", package).lower()
    for found in importlib.metadata.distributions(path=[str(site)]):
        if re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower() == name:
            return found.version
    raise BundleError(f"{site} has no {package}")


def check_linked(path, prefix):
    """A program left over from an earlier configuration was linked with another torch."""
    dynamic = subprocess.run(["readelf", "-d", str(path)], capture_output=True, text=True, check=True).stdout
    if str(prefix) not in dynamic:
        raise BundleError(f"{path} was linked with another torch than that of {prefix}: build it again")


def copy_stripped(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)
    subprocess.run(["strip", "--strip-unneeded", str(target)], check=True)


def bundled_libraries(programs, prefix):
    """Returns {name: path} of the libraries that neither torch's wheel nor every system has."""
    site, found = site_packages(prefix), {}
    for program in programs:
        for name, place in resolved_libraries(program, os.environ).items():
            if SYSTEM_LIBRARIES.match(name):
                continue
            if place is None:
                raise BundleError(f"{program.name} needs {name}, which is not found here")
            if not Path(os.path.normpath(place)).is_relative_to(site):
                found[name] = Path(place)
    return found


def write_wrapper(path):
    path.write_text(WRAPPER)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def add_programs(build, prefix, target):
    """Copies the programs with their libraries, and makes a script that starts each. Returns the names of those not built."""
    absent = [name for name in (*REQUIRED, *OPTIONAL, RECORDER) if not (build / name).is_file()]
    if lacking := [name for name in REQUIRED if name in absent]:
        raise BundleError(f"{build} has no {', '.join(lacking)}: build it first")
    paths = [build / name for name in (*REQUIRED, *OPTIONAL, RECORDER) if name not in absent]
    for path in paths:
        check_linked(path, prefix)
        copy_stripped(path, target / "programs" / path.name)
        if path.suffix != ".so":
            write_wrapper(target / path.name)
    if RECORDER not in absent:
        os.link(target / "programs" / RECORDER, target / RECORDER)  # CUDA loads it by this name
    for name, path in bundled_libraries(paths, prefix).items():
        copy_stripped(path, target / "libraries" / name)
    return absent


def closure(packages, stop=()):
    """Returns {package: version} of packages of this Python with all that they need on Linux, without `stop`."""
    from packaging.requirements import Requirement

    found, open_ = {}, list(packages)
    while open_:
        name = re.sub(r"[-_.]+", "-", open_.pop()).lower()
        if name in found or name in stop:
            continue
        found[name] = importlib.metadata.version(name)
        needs = [Requirement(line) for line in importlib.metadata.requires(name) or []]
        open_ += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def copy_packages(packages, target):
    """Copies installed packages; they must be pure Python or for the stable interface of C."""
    for name in packages:
        for file in importlib.metadata.files(name):
            if ".." in file.parts or "__pycache__" in file.parts:
                continue
            if file.suffix == ".so" and ".abi3." not in file.name:
                raise BundleError(f"{name} has {file}, which runs on this Python alone")
            destination = target / file
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), destination)


def add_tree(root, target):
    for pattern in TREE:
        for path in root.glob(pattern):
            destination = target / path.relative_to(root)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, destination)


def make_core(root, build, output, quick=False):
    prefix = prefix_of(build)
    with tempfile.TemporaryDirectory(prefix="neoloom-gpu-") as temporary:
        folder = Path(temporary)
        absent = add_programs(build, prefix, folder / "build")
        packages = closure(CORE_PACKAGES.values())
        copy_packages(packages, folder / "site" / "core")
        add_tree(root, folder)
        manifest = dict(torch=version_in(site_packages(prefix), "torch").split("+")[0], glibc=platform.libc_ver()[1],
                        modules=list(CORE_PACKAGES), packages=packages, absent=absent)
        return pack(folder, output, "core", manifest, quick)


# ---- the other parts

def download(folder, python, *requirements):
    """Downloads wheels for another Python on Linux, without what they need."""
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--implementation", "cp",
               "--python-version", python, *platforms, "-d", str(folder), *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BundleError(f"pip download: {done.stderr.strip()[-800:]}")
    return sorted(folder.glob("*.whl"))


def make_hf(output, python):
    packages = closure(HF_PACKAGES.values(), stop=["torch"])
    with tempfile.TemporaryDirectory(prefix="neoloom-gpu-") as temporary:
        wheels, folder = Path(temporary) / "wheels", Path(temporary) / "tree"
        for path in download(wheels, python, *(f"{name}=={version}" for name, version in packages.items())):
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(folder / "site" / "hf")
        return pack(folder, output, "hf", dict(python=python, modules=list(HF_PACKAGES), packages=packages))


def make_sanitizer(output, python):
    with tempfile.TemporaryDirectory(prefix="neoloom-gpu-") as temporary:
        (path,), folder = download(Path(temporary) / "wheels", python, SANITIZER), Path(temporary) / "tree"
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(Path(temporary) / "wheel")
        base = next((Path(temporary) / "wheel").glob("nvidia/*/bin")).parent
        for part in ("bin", "lib"):
            shutil.copytree(base / part, folder / "sanitizer" / part)
        (folder / "sanitizer" / "bin" / "compute-sanitizer").chmod(0o755)
        return pack(folder, output, "sanitizer", dict(version=path.name.split("-")[1]))


def make_cudnn(output, name, site):
    """Packs half of what a runtime-compiled graph of cuDNN loads."""
    source = site / "nvidia" / "cudnn" / "lib"
    with tempfile.TemporaryDirectory(prefix="neoloom-gpu-") as temporary:
        folder = Path(temporary)
        (folder / "cudnn").mkdir()
        for library in CUDNN[name]:
            shutil.copyfile(source / library, folder / "cudnn" / library)
        return pack(folder, output, name, dict(cudnn=version_in(site, "nvidia-cudnn-cu13")))


def parse():
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh gpu_bundle", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the parts go")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--build", type=Path, default=ROOT / "build",
                        help="build folder; the machine must have the torch that it was made for (default build)")
    parser.add_argument("--python", default="3.12", help="of the machine, for part hf (default 3.12)")
    parser.add_argument("--cudnn", type=Path, default=Path(sys.prefix),
                        help="Python prefix with the newer cuDNN (default: this Python's)")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - set(PARTS)):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return arguments


def main():
    arguments = parse()
    makers = {"core": lambda: make_core(ROOT, arguments.build.resolve(), arguments.folder),
              "hf": lambda: make_hf(arguments.folder, arguments.python),
              "sanitizer": lambda: make_sanitizer(arguments.folder, arguments.python)}
    for name in CUDNN:
        makers[name] = lambda name=name: make_cudnn(arguments.folder, name, site_packages(arguments.cudnn))
    try:
        for name in arguments.parts or PARTS:
            path = makers[name]()
            print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB", flush=True)
    except BundleError as reason:
        print(f"gpu_bundle: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

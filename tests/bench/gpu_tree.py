# SPDX-License-Identifier: Apache-2.0
"""What gpu_report runs out of: a checkout with its build folder, or an unpacked bundle. Needs Python's library alone.

An unpacked bundle: parts/NAME.json (manifests), build/ (programs, build/libraries beside them), site/NAME/ (Python
packages), sanitizer/, cudnn/, and the tests and benchmarks where a checkout has them.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Libraries of every Linux system: they belong to its loader and compiler, and a bundle must not bring its own.
SYSTEM_LIBRARIES = re.compile(r"^(linux-vdso|ld-linux-x86-64|lib(c|m|dl|rt|pthread|util|resolv|gcc_s|stdc\+\+))\.so")
PARTS = ("core", "hf", "sanitizer", "cudnn-graph", "cudnn-engines")


class WrongBundle(Exception):
    """This machine cannot run the bundle; the text says which one it needs."""


def numbers(version):
    return [int(word) for word in re.findall(r"\d+", version.split("+")[0])]


def version_of(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def torch_libraries():
    """Returns the folders with the libraries of the torch wheel of this Python."""
    torch = importlib.util.find_spec("torch")
    if torch is None:
        raise WrongBundle(f"{sys.executable} has no torch; start this with a Python that has it")
    nvidia = importlib.util.find_spec("nvidia")
    found = [Path(torch.origin).parent / "lib"]
    for base in nvidia.submodule_search_locations if nvidia else ():
        found += sorted(Path(base).glob("*/lib"))
    return found


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolved_libraries(path, environment):
    """Returns {name: path, or None for a library that is not found} of a program or library, by ldd."""
    listing = subprocess.run(["ldd", str(path)], env=environment, capture_output=True, text=True).stdout
    found = {}
    for line in listing.splitlines():
        if match := re.match(r"\s*(\S+) => (?:(/\S+)|not found)", line):
            found[match[1]] = match[2]
    return found


@dataclass
class Tree:
    root: Path
    build: Path
    manifests: dict  # by the name of the part; empty in a checkout

    @classmethod
    def at(cls, root, build=None):
        manifests = {}
        for name in PARTS:
            path = root / "parts" / f"{name}.json"
            if path.exists():
                manifests[name] = json.loads(path.read_text())
        return cls(root, Path(build or root / "build").resolve(), manifests)

    @property
    def is_bundle(self):
        return "core" in self.manifests

    def check(self):
        """Raises WrongBundle in one sentence if this machine's torch, Python or C library is another one than that which
        the bundle was made for, or if a file is not what was packed."""
        if not self.is_bundle:
            return
        core, torch = self.manifests["core"], version_of("torch")
        if torch is None or torch.split("+")[0] != core["torch"]:
            raise WrongBundle(f"this bundle was made for torch {core['torch']} and {sys.executable} has "
                              f"{'none' if torch is None else torch}: make one with --build of a build for that version")
        if numbers(platform.libc_ver()[1]) < numbers(core["glibc"]):
            raise WrongBundle(f"this bundle needs glibc {core['glibc']} or newer and this machine has "
                              f"{platform.libc_ver()[1]}: make one on a system as old as this")
        for name, manifest in self.manifests.items():
            wrong = [file for file, digest in manifest["files"].items()
                     if not (self.root / file).is_file() or sha256(self.root / file) != digest]
            if wrong:
                raise WrongBundle(f"part {name} is not as it was packed ({wrong[0]}): unpack it again")

    def left_out_parts(self):
        """Returns {part: why it is not used here} of a bundle."""
        reasons = {}
        for name in PARTS if self.is_bundle else ():
            if name not in self.manifests:
                reasons[name] = "missing"
            elif name == "hf" and self.manifests[name]["python"] != f"{sys.version_info[0]}.{sys.version_info[1]}":
                reasons[name] = f"made for Python {self.manifests[name]['python']}"
            elif name.startswith("cudnn") and not self._newer_cudnn(name):
                reasons[name] = f"cuDNN {version_of('nvidia-cudnn-cu13')} of this machine is as new"
        return reasons

    def _newer_cudnn(self, part):
        here = version_of("nvidia-cudnn-cu13")
        return here is None or numbers(self.manifests[part]["cudnn"]) > numbers(here)

    def python_folders(self):
        """Returns folders of the bundle with packages that this Python lacks. Its own come first where it has all."""
        left_out = self.left_out_parts()
        return [self.root / "site" / name for name in ("core", "hf")
                if name in self.manifests and name not in left_out
                and any(importlib.util.find_spec(module) is None for module in self.manifests[name]["modules"])]

    def environment(self, **more):
        """Returns the variables of every program that a section starts."""
        values = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1", HF_HUB_OFFLINE="1",
                      TOKENIZERS_PARALLELISM="false", NEOLOOM_BUILD_DIR=str(self.build),
                      NEOLOOM_SOURCE_DIR=str(self.root))
        folders = [*map(str, self.python_folders()), *filter(None, [os.environ.get("PYTHONPATH")])]
        if folders:
            values["PYTHONPATH"] = os.pathsep.join(folders)
        if self.is_bundle:
            values["NL_TORCH_LIBRARIES"] = os.pathsep.join(map(str, torch_libraries()))
        return values | more

    def cudnn_environment(self):
        """Returns the variables of a program that is to load the bundle's newer cuDNN, if it is all there."""
        halves = [name for name in PARTS if name.startswith("cudnn")]
        left_out = self.left_out_parts()
        if not self.is_bundle or any(name in left_out for name in halves):
            return {}
        return dict(NL_TORCH_LIBRARIES=os.pathsep.join(map(str, [self.root / "cudnn", *torch_libraries()])))

    def has_program(self, name):
        return any((folder / name).is_file() for folder in (self.build, self.build / "programs"))

    def sanitizer(self):
        """Returns compute-sanitizer of the bundle or of this machine, or None."""
        own = self.root / "sanitizer" / "bin" / "compute-sanitizer"
        if own.is_file():
            return own
        found = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
        return Path(found) if found else None

    def has_module(self, name):
        return importlib.util.find_spec(name) is not None or any((folder / name).exists() for folder in self.python_folders())

    def foreign_libraries(self):
        """Returns what the programs of a bundle would load from elsewhere than the bundle, torch's wheel and the system's
        own C and C++ libraries, or not find: [(program, library, path or "not found")]."""
        folders = [self.root, *torch_libraries()]
        paths = os.pathsep.join(map(str, [self.build / "libraries", *torch_libraries()]))
        environment, wrong = dict(os.environ, LD_LIBRARY_PATH=paths), []
        files = [path for path in sorted((self.build / "programs").iterdir()) if path.is_file()]
        for path in [*files, *sorted((self.build / "libraries").iterdir())]:
            for name, place in resolved_libraries(path, environment).items():
                if SYSTEM_LIBRARIES.match(name):
                    continue
                if place is None or not any(Path(os.path.normpath(place)).is_relative_to(folder) for folder in folders):
                    wrong.append((path.name, name, place or "not found"))
        return wrong


if __name__ == "__main__":  # for the programs of a bundle that are started by hand
    print(os.pathsep.join(map(str, torch_libraries())))

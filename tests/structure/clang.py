# SPDX-License-Identifier: Apache-2.0
"""Runs clang's front end, as a second compiler, over the project's own sources with the options of the build.

    python3 tests/structure/clang.py [BUILD_FOLDER] [FILE...]

GCC builds; clang only parses (-fsyntax-only). Options that only GCC knows, which the packages of Open MPI and HDF5 bring,
are left out."""

import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OWN = ("runtime/", "model/", "data/", "launch/", "tests/")
CLANG_ONLY = ["-fsyntax-only", "-Wno-unknown-warning-option", "-Wno-unused-command-line-argument"]


def is_for_gcc_alone(option):
    return option.startswith("-Werror=") or option.startswith("-Wno-error=") or option in ("-fopenmp", "-c")


def command_of(entry):
    options = shlex.split(entry["command"])
    compiler = next(i for i, option in enumerate(options) if option.endswith(("c++", "g++", "clang++")))
    kept = []
    rest = iter(options[compiler + 1:])
    for option in rest:
        if option in ("-o", "-MT", "-MF"):
            next(rest)
        elif option != "-MD" and not is_for_gcc_alone(option):
            kept.append(option)
    return ["clang++", *CLANG_ONLY, *kept]


def check(entry):
    done = subprocess.run(command_of(entry), cwd=entry["directory"], capture_output=True, text=True)
    return pathlib.Path(entry["file"]).relative_to(ROOT), done.returncode, done.stderr


def main(build="build-checks", *files):
    entries = json.loads((ROOT / build / "compile_commands.json").read_text())
    wanted = {str(ROOT / name) for name in files}
    entries = [entry for entry in entries
               if entry["file"].startswith(tuple(str(ROOT / folder) for folder in OWN)) and entry["file"].endswith(".cpp")
               and (not wanted or entry["file"] in wanted)]
    jobs = int(os.environ.get("NEOLOOM_JOBS", os.cpu_count()))
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for path, code, text in pool.map(check, entries):
            if code != 0:
                failed += 1
                print(f"== {path}\n{text}")
    print(f"clang.py: {len(entries)} files, {failed} with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

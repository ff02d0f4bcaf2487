# SPDX-License-Identifier: Apache-2.0
"""Tells which pinned Python packages have a newer release, and writes requirements with the newest of all.

    python3 cluster/bootstrap/newest.py                 one line per pin
    python3 cluster/bootstrap/newest.py --write FOLDER  also FOLDER/requirements.txt, requirements-tests.txt and an empty
                                                        constraints.txt, for bootstrap.sh --requirements FOLDER

Needs an interpreter with pip, and the package index that pip uses. Pins that must move together stay: see KEPT.
"""

import argparse
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
FILES = ("requirements.txt", "requirements-tests.txt")
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)$")
KEPT = {
    "clang-format": "the committed format is that of this version",
    "nvidia-cuda-crt": "torch's CUDA decides",
    "nvidia-cuda-cccl": "torch's CUDA decides",
}


def newest(name):
    """Returns the newest release on the index that this interpreter can install."""
    done = subprocess.run([sys.executable, "-m", "pip", "index", "versions", "--disable-pip-version-check", name],
                          capture_output=True, text=True)
    found = re.match(rf"{re.escape(name)} \((\S+)\)", done.stdout)
    if done.returncode != 0 or not found:
        sys.exit(f"newest.py: pip finds no release of {name}: {done.stderr.strip()}")
    return found[1]


def moved(line, find=newest):
    """Returns the line with the newest version of its pin, and what to tell of it; other lines as they are."""
    pin = PIN.match(line.strip())
    if not pin:
        return line, None
    name, version = pin.groups()
    if name in KEPT:
        return line, f"{name} {version}: kept, {KEPT[name]}"
    found = find(name)
    return f"{name}=={found}", f"{name} {version}" + (": the newest" if found == version else f" -> {found}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=pathlib.Path, metavar="FOLDER")
    folder = parser.parse_args(arguments).write
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "constraints.txt").write_text("")
    for file in FILES:
        lines = []
        for line in (HERE / file).read_text().splitlines():
            line, told = moved(line)
            lines.append(line)
            if told:
                print(told, flush=True)
        if folder:
            (folder / file).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Configuration keys and command-line options that messages name exist. Every result goes through
the stream that checks every write."""

import os
import pathlib
import re

ROOT = pathlib.Path(os.environ["NEOLOOM_SOURCE_DIR"])
SOURCES = sorted(path for room in ("runtime", "model", "data", "launch") for path in (ROOT / room).rglob("*.cpp"))
LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
# Options of other programs that messages advise, and the one that CLI11 adds itself.
FOREIGN_OPTIONS = {"--help", "--revision", "--map-by", "--mpi", "--mca", "--shm-size", "--ipc"}


def known_keys():
    """Returns group -> keys and their other spellings, as configs/README.md lists them; a test of the configuration compares that
    page with the reader."""
    keys, group = {}, None
    for line in (ROOT / "configs/README.md").read_text().splitlines():
        if heading := re.match(r"## `(\w+)`", line):
            group = keys.setdefault(heading[1], set())
        elif group is not None and (row := re.match(r"\| `(\w+)` \|", line)):
            group |= {row[1], *re.findall(r"`(?:\w+\.)?(\w+)`", line.rsplit("|", 2)[1])}
    return keys


def pasted_keys():
    """Returns keys of Hugging Face's classes that the reader knows in order to accept or to refuse them by name."""
    return {text for path in (ROOT / "launch/config").glob("foreign_*keys.cpp") for text in literals(path)}


def literals(path):
    """Returns the string literals of a source. Joins those that stand beside each other."""
    text = re.sub(r"^\s*(#include|//).*$", "", path.read_text(), flags=re.MULTILINE)
    return [match[1] for match in LITERAL.finditer(re.sub(r'"\s*\n\s*"', "", text))]


def unknown_keys(text, keys):
    known = set.union(*keys.values())
    for group, name in re.findall(rf"(?<![\w.])({'|'.join(keys)})\.(?!(?:json|pkl)\b)([a-z]\w*)", text):
        whole = text == f"{group}.{name}"  # a prefix in a list of keys
        if name not in keys[group] and not (whole and any(key.startswith(name) for key in keys[group])):
            yield f"{group}.{name}"
    for name in re.findall(r"(?<![\w.])([a-z]+(?:_[a-z]+)+): (?:true|false)\b", text):
        if name not in known:
            yield name


def test_the_keys_are_found():
    keys = known_keys()
    assert {"text_column", "format"} <= keys["data"] and "cache_dir" in keys["runtime"]
    assert list(unknown_keys("set data.max_length, or drop_last: false", keys)) == ["data.max_length", "drop_last"]


def test_every_key_that_a_message_names_exists():
    keys = known_keys()
    # Keys in files of Hugging Face.
    theirs = {"add_eos_token", "single_word"}
    pasted = pasted_keys()
    wrong = [f"{path.relative_to(ROOT)}: {name}" for path in SOURCES for text in literals(path)
             for name in unknown_keys(text, keys) if name not in theirs
             and not (path.parent.name == "config" and name.split(".")[-1] in pasted)]
    assert not wrong, "\n".join(wrong)


def test_every_option_that_a_message_names_exists():
    option = re.compile(r"(?<![\w-])--[a-z][a-z_-]*")
    known = {text for text in literals(ROOT / "launch/command_line.cpp") if option.fullmatch(text)}
    assert {"--config", "--ranks_per_node", "--set"} <= known
    wrong = [f"{path.relative_to(ROOT)}: {name}" for path in SOURCES for text in literals(path)
             for name in option.findall(text) if name not in known | FOREIGN_OPTIONS]
    assert not wrong, "\n".join(wrong)


def test_results_are_written_through_the_stream_that_checks_them():
    unchecked = re.compile(r"std::cout|\bf?printf\(|\bf?puts\(|fmt::print\(|\bstdout\b")
    wrong = [f"{path.relative_to(ROOT)}:{number}: {line.strip()}" for path in SOURCES
             for number, line in enumerate(path.read_text().splitlines(), 1)
             if unchecked.search(line) and not line.lstrip().startswith("//")]
    assert not wrong, "\n".join(wrong) + "\nuse core::Output (runtime/core/output.h)"

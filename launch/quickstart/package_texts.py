#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a real text set from this distribution's package lists: descriptions, labelled with their section.

Writes into --output: corpus.jsonl (text; for pretraining), train.jsonl and validation.jsonl (text, section), about.json.
The long descriptions are fetched with apt into a private state folder under --output; where that fails, the one-line
descriptions of `apt-cache dumpavail` serve, and the script says so. Standard library only.
"""
import argparse
import collections
import glob
import hashlib
import json
import os
import subprocess
import sys

SECTIONS = 12  # the most frequent sections become the classes
VALIDATION_SHARE = 20  # one text in so many is held out
LABELLED_CHARACTERS = 400  # longer texts serve pretraining only: a small model reads short ones whole


def paragraphs(lines):
    """deb822 stanzas as dicts; continuation lines keep their newline."""
    stanza, key = {}, None
    for line in lines:
        line = line.rstrip("\n")
        if not line:
            if stanza:
                yield stanza
            stanza, key = {}, None
        elif line[0] in " \t":
            if key:
                stanza[key] += "\n" + line.strip()
        else:
            key, _, value = line.partition(":")
            stanza[key] = value.strip()
    if stanza:
        yield stanza


def decompressed(path):
    helper = "/usr/lib/apt/apt-helper"
    process = subprocess.Popen([helper, "cat-file", path], stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace")
    yield from process.stdout
    if process.wait() != 0:
        raise OSError(f"{helper} cat-file {path} failed")


def fetch_lists(state):
    for folder in ("lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(state, folder), exist_ok=True)
    options = {
        "Dir::State": state,
        "Dir::State::Lists": f"{state}/lists",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": f"{state}/cache",
        "Acquire::Languages": "en",
        "APT::Sandbox::User": "root" if os.getuid() == 0 else "",
    }
    command = ["apt-get", "-q"] + [word for key, value in options.items() for word in ("-o", f"{key}={value}")] + ["update"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=300, stdin=subprocess.DEVNULL)
    packages = sorted(glob.glob(f"{state}/lists/*_Packages*"))
    translations = sorted(glob.glob(f"{state}/lists/*_Translation-en*"))
    if not packages or not translations:
        raise OSError("apt fetched no Packages or Translation-en lists")
    return packages, translations


def flowing(description):
    """A description as running text: ' .' lines separate paragraphs."""
    short, _, rest = description.partition("\n")
    parts = [" ".join(part.split()) for part in rest.split("\n.\n")] if rest else []
    return "\n".join([short.strip()] + [part for part in parts if part])


def long_texts(state):
    packages, translations = fetch_lists(state)
    texts = {}
    for path in translations:
        for stanza in paragraphs(decompressed(path)):
            if "Description-en" in stanza:
                texts[stanza["Description-md5"]] = flowing(stanza["Description-en"])
    for path in packages:
        for stanza in paragraphs(decompressed(path)):
            text = texts.pop(stanza.get("Description-md5", ""), None)  # packages that share a description count once
            if text and "Section" in stanza:
                yield text, stanza["Section"]


def short_texts():
    process = subprocess.run(["apt-cache", "dumpavail"], check=True, capture_output=True, text=True, errors="replace")
    seen = set()
    for stanza in paragraphs(process.stdout.splitlines()):
        text = stanza.get("Description", "").partition("\n")[0]
        if text and "Section" in stanza and text not in seen:
            seen.add(text)
            yield text, stanza["Section"]


def collect(state):
    try:
        return list(long_texts(state)), "long descriptions"
    except (OSError, subprocess.SubprocessError) as error:
        print(f"package_texts: no long descriptions ({error}); using one-line descriptions", file=sys.stderr)
    try:
        rows = list(short_texts())
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"package_texts: this system has no package lists ({error}); give your own data: "
                 "launch/quickstart.sh --train FILE.jsonl")
    if len(rows) < 1000:
        sys.exit(f"package_texts: only {len(rows)} package descriptions here (run apt-get update), or give your own data: "
                 "launch/quickstart.sh --train FILE.jsonl")
    return rows, "one-line descriptions"


def write(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True)
    parser.add_argument("--max-train", type=int, default=8000)
    parser.add_argument("--max-validation", type=int, default=1000)
    arguments = parser.parse_args()
    os.makedirs(arguments.output, exist_ok=True)
    rows, source = collect(os.path.join(os.path.abspath(arguments.output), "apt"))
    # The hash of a text decides its place: the same lists give the same files, whatever their order.
    rows = sorted((hashlib.sha256(text.encode()).hexdigest(), text, section.rpartition("/")[2]) for text, section in rows)
    frequent = [name for name, _ in collections.Counter(section for _, _, section in rows).most_common(SECTIONS)]
    held_out = [row for row in rows if int(row[0][:8], 16) % VALIDATION_SHARE == 0]
    training = [row for row in rows if int(row[0][:8], 16) % VALIDATION_SHARE != 0]

    def labelled(part, limit):
        return [{"text": text, "section": section} for _, text, section in part
                if section in frequent and len(text) <= LABELLED_CHARACTERS][:limit]

    train, validation = labelled(training, arguments.max_train), labelled(held_out, arguments.max_validation)
    write(f"{arguments.output}/corpus.jsonl", ({"text": text} for _, text, _ in training))
    write(f"{arguments.output}/train.jsonl", train)
    write(f"{arguments.output}/validation.jsonl", validation)
    about = {"source": source, "texts": len(rows), "train": len(train), "validation": len(validation), "sections": frequent}
    with open(f"{arguments.output}/about.json", "w", encoding="utf-8") as file:
        json.dump(about, file, indent=2)
    print(f"{about['texts']} texts ({source}); {about['train']} to train on, {about['validation']} held out, "
          f"{len(frequent)} sections")


if __name__ == "__main__":
    main()

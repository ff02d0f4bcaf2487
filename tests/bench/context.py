# SPDX-License-Identifier: Apache-2.0
"""Holds what every section of the benchmark is told, and makes the models it measures."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from report import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))
DATA_HELP = """folder with classification/sms_spam/sms.tsv (label, text), classification/banking77/train.csv (text,category),
classification/ag_news/test.csv (class, title, description), tokenizer/gpt2-hf (vocab.json, merges.txt) and
text/wikitext-2/test.txt"""


class NotMeasured(Exception):
    """This section cannot run here; the text says what is missing."""


@dataclass
class Context:
    build: Path
    work: Path
    data: Path | None
    steps: int
    warmup: int
    threads: int
    limit: int
    sets: list
    only: list
    store_rows: int
    before: Path | None
    hf: list
    device_warmup: int
    newest: Path | None

    def say(self, text):
        print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)

    def chosen(self, rows):
        """Returns those of `rows` whose names contain one of `only`."""
        found = [row for row in rows if not self.only or any(part in row.name for part in self.only)]
        if not found:
            raise NotMeasured(f"no row's name contains {' or '.join(self.only)}; there are {', '.join(row.name for row in rows)}")
        return found

    def model(self, size, dtype):
        """Returns a folder with random weights of a released shape."""
        import sizes

        return sizes.make_model_folder(self.work / f"model-{size}-{dtype}", size, dtype=dtype)

    def given(self, *names):
        """Returns a path below --data."""
        if self.data is None:
            raise NotMeasured("not measured: it needs --data FOLDER")
        path = self.data.joinpath(*names)
        if not path.exists():
            raise NotMeasured(f"not measured: {path} is missing; --data names a {DATA_HELP}")
        return path

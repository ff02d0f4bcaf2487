#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Splits a labelled file: every tenth row goes to validation.EXT, the others to train.EXT."""
import argparse
import os

from rows import read_rows, write_rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True, help="folder")
    arguments = parser.parse_args()
    rows = read_rows(arguments.input)
    extension = os.path.splitext(arguments.input)[1]
    write_rows(f"{arguments.output}/validation{extension}", rows[9::10])
    write_rows(f"{arguments.output}/train{extension}", [row for i, row in enumerate(rows) if i % 10 != 9])
    print(f"{len(rows)} rows, {len(rows[9::10])} of them held out")


if __name__ == "__main__":
    main()

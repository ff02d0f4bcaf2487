#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shows the first five predictions beside their texts and true labels."""
import argparse
import itertools
import json

from rows import read_rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", required=True)
    parser.add_argument("--predictions", required=True)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--label_column", default="label")
    arguments = parser.parse_args()
    with open(arguments.predictions, encoding="utf-8") as file:
        for row, line in itertools.islice(zip(read_rows(arguments.input), file), 5):
            prediction = json.loads(line)
            text = " ".join(row[arguments.text_column].split())
            print(f"{prediction['label']:>12} ({100 * prediction['score']:3.0f} %)  true: {row[arguments.label_column]:<12} "
                  f"{text[:70]}{'...' if len(text) > 70 else ''}")


if __name__ == "__main__":
    main()

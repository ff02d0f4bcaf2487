#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares a trained adapter with the majority class and with the untrained adapter; exit code 1 when it is no better."""
import argparse
import json
import sys

POINTS_ABOVE_MAJORITY = 25.0  # percent points of accuracy
POINTS_ABOVE_UNTRAINED = 10.0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", required=True)
    parser.add_argument("--untrained", required=True)
    arguments = parser.parse_args()
    with open(arguments.trained, encoding="utf-8") as file:
        trained = json.load(file)
    with open(arguments.untrained, encoding="utf-8") as file:
        untrained = json.load(file)
    rows = trained["eval_confusion_matrix"]
    counts = [sum(row) for row in rows]
    majority = 100.0 * max(counts) / sum(counts)
    name = trained["eval_labels"][counts.index(max(counts))]
    accuracy, start = 100.0 * trained["eval_accuracy"], 100.0 * untrained["eval_accuracy"]
    print(f"accuracy on {sum(counts)} held-out rows, {len(counts)} classes")
    print(f"  always the most frequent class ({name})  {majority:5.1f} %")
    print(f"  untrained adapter                        {start:5.1f} %")
    print(f"  trained adapter                          {accuracy:5.1f} %   (macro F1 {100 * trained['eval_macro_f1']:.1f} %)")
    if accuracy < majority + POINTS_ABOVE_MAJORITY or accuracy < start + POINTS_ABOVE_UNTRAINED:
        sys.exit(f"the trained adapter should be {POINTS_ABOVE_MAJORITY:.0f} points above the most frequent class and "
                 f"{POINTS_ABOVE_UNTRAINED:.0f} above the untrained adapter")


if __name__ == "__main__":
    main()

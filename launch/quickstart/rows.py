# SPDX-License-Identifier: Apache-2.0
"""Reading rows of the formats that the quick start takes: JSONL, and CSV or TSV with a header."""
import csv
import json
import sys


def delimiter(path):
    return "\t" if path.endswith(".tsv") else ","


def read_rows(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        if path.endswith((".csv", ".tsv")):
            return list(csv.DictReader(file, delimiter=delimiter(path)))
        if path.endswith(".jsonl"):
            return [json.loads(line) for line in file if line.strip()]
    sys.exit(f"quickstart: {path}: expected a .jsonl, .csv or .tsv file")


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        if path.endswith(".jsonl"):
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            return
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter(path))
        writer.writeheader()
        writer.writerows(rows)

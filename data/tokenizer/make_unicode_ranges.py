#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes unicode_ranges.h: the code points that `tokenizers` takes for \\p{L}, \\p{N} and \\s in the GPT-2 expression.

The ids of a text must not depend on the Unicode tables of the system's PCRE2, so they are read from the oracle once.
Usage: python3 data/tokenizer/make_unicode_ranges.py > data/tokenizer/unicode_ranges.h && clang-format -i <that file>
"""
import tokenizers
from tokenizers import Regex, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
TEXT = "".join(map(chr, CODE_POINTS))


def ranges_of(expression):
    split = pre_tokenizers.Split(Regex(expression + "+"), behavior="removed", invert=True)
    ranges = []
    for _, (begin, end) in split.pre_tokenize_str(TEXT):
        first, last = CODE_POINTS[begin], CODE_POINTS[end - 1]
        assert not first < 0xD800 <= last, "a range would run over the surrogates"
        ranges.append((first, last))
    return ranges


def main():
    print("// SPDX-License-Identifier: Apache-2.0")
    print(f"// Written by data/tokenizer/make_unicode_ranges.py from tokenizers {tokenizers.__version__} (Unicode 16). Do not edit.")
    print("#pragma once\n\nnamespace neoloom::data {\n")
    for name, expression in (("Letter", r"\p{L}"), ("Number", r"\p{N}"), ("Space", r"\s")):
        ranges = ranges_of(expression)
        count = sum(last - first + 1 for first, last in ranges)
        print(f"/// {expression}: {count:,} code points in {len(ranges)} ranges, as the inside of a PCRE2 character class.")
        print(f"inline constexpr char k{name}Ranges[] =")
        line = ""
        for first, last in ranges:
            item = f"\\\\x{{{first:x}}}" + (f"-\\\\x{{{last:x}}}" if last > first else "")
            if len(line) + len(item) > 108:
                print(f'    "{line}"')
                line = ""
            line += item
        print(f'    "{line}";\n')
    print("}  // namespace neoloom::data")


if __name__ == "__main__":
    main()

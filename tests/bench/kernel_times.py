# SPDX-License-Identifier: Apache-2.0
"""Groups what a step runs on a GPU, from the records of kernel_times.c: kernels, copies and fills."""

import re

from sides import SideFailed

FEW, MANY = 8, 16  # steps before the measured ones (graphs are recorded), and all from there on
GROUPS = [  # a kernel belongs to the first that its name matches
    ("attention", r"flash|fmha|attention"),
    ("GEMMs", r"gemm|nvjet|cutlass|xmma|gemv|splitK"),
    ("LayerNorm", r"layer_norm|LayerNorm|GammaBeta"),
    ("GELU", r"[Gg][Ee][Ll][Uu]"),
    ("softmax, cross entropy", r"[Ss]oft[Mm]ax|nll_loss"),
    ("AdamW, clipping", r"[Aa]dam|multi_tensor|lpnorm|norm_"),
    ("copies, fills, other types", r"^mem|copy|[Cc]at|fill|Fill"),
    ("sums", r"reduce"),
    ("elementwise and the rest", r""),
]


def parse_runs(path):
    """Returns the records of kernel_times.c: [(name, begin, end)] in the device's order."""
    names, found = {}, []
    for line in path.read_text(errors="replace").splitlines():
        word, number, rest = line.split(" ", 2)
        if word == "name":
            names[number] = rest
        else:
            begin, end = map(int, rest.split())
            found.append((names[number], begin, end))
    return sorted(found, key=lambda run: run[1])


def kernels(open_side, request, context):
    """Returns runs and seconds a step by group of kernels, and the seconds in which none ran. AdamW's kernels end steps."""
    path = request.parent / "kernels.txt"
    side = open_side(CUDA_INJECTION64_PATH=str(context.build / "libkernel_times.so"), NL_KERNEL_TIMES=str(path))
    for count in (FEW, MANY):
        side.ask(f"step {count}")
    side.end()
    found = parse_runs(path)
    marks = [index for index, (name, *_) in enumerate(found) if re.search("[Aa]dam", name)]
    each = len(marks) // (FEW + MANY)
    if each < 1:
        raise SideFailed(f"{path}: {len(marks)} kernels of AdamW in {FEW + MANY} steps")
    first, last = marks[-1 - each * (MANY // 2)] + 1, marks[-1] + 1
    steps, window = MANY // 2, found[first:last]
    groups, longest = {name: dict(runs=0.0, seconds=0.0) for name, _ in GROUPS}, {}
    busy, reached = 0, window[0][1]
    for name, begin, end in window:
        group = groups[next(title for title, pattern in GROUPS if re.search(pattern, name))]
        group["runs"] += 1 / steps
        group["seconds"] += (end - begin) * 1e-9 / steps
        longest[name] = longest.get(name, 0.0) + (end - begin) * 1e-9 / steps
        busy += max(0, end - max(begin, reached))
        reached = max(reached, end)
    whole = (window[-1][2] - found[first - 1][2]) * 1e-9 / steps
    return dict(groups=groups, step_seconds=whole, idle_seconds=whole - busy * 1e-9 / steps,
                runs=sum(group["runs"] for group in groups.values()),
                longest=sorted(longest.items(), key=lambda item: -item[1])[:25])

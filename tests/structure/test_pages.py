# SPDX-License-Identifier: Apache-2.0
"""The pages: every link leads somewhere, README leads to every page, and README stays short."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))

import pages  # noqa: E402

MOST_LINES = 150  # of README.md
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def tracked_pages():
    return [pathlib.Path(page) for page in pages.tracked()]


def without_code(text):
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(page):
    """Returns the names that headings have on the web: lower case, blanks as dashes, other signs dropped."""
    headings = re.findall(r"^#+ +(.*)$", without_code((ROOT / page).read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page):
    """Yields (target page or file, anchor) of each link inside the repository."""
    for target in LINK.findall(without_code((ROOT / page).read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page.parent / path).resolve() if path else ROOT / page
        yield found.relative_to(ROOT), anchor


@pytest.mark.parametrize("page", tracked_pages(), ids=str)
def test_links_lead_somewhere(page):
    for target, anchor in links(page):
        assert (ROOT / target).exists(), f"{page} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(target), f"{page} links to {target}#{anchor}; headings: {sorted(anchors(target))}"


def test_readme_leads_to_every_page():
    seen = {target for target, _ in links(pathlib.Path("README.md"))}
    missing = set(tracked_pages()) - seen - {pathlib.Path("README.md"), pathlib.Path("CHANGELOG.md")}
    assert not missing, f"README.md does not list {sorted(map(str, missing))}"


def test_the_messages_that_troubleshooting_quotes_are_those_of_the_program():
    """Literals that a formatter broke over lines are one text here."""
    files = subprocess.run(["git", "ls-files", "runtime", "model", "data", "launch"], cwd=ROOT, capture_output=True, text=True)
    source = "".join((ROOT / name).read_text() for name in files.stdout.split() if name.endswith((".cpp", ".h")))
    source = re.sub(r'"\s*\n\s*"', "", source)
    symptoms = [line.split("|")[1] for line in (ROOT / "cluster/TROUBLESHOOTING.md").read_text().splitlines()
                if line.startswith("| ")]
    quoted = [text for symptom in symptoms for text in re.findall(r"`([^`]+)`", symptom)]
    assert len(quoted) > 10
    missing = [text for text in quoted if text not in source]
    assert not missing, f"no message of the program holds {missing}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < MOST_LINES

# SPDX-License-Identifier: Apache-2.0
"""Help, the manual page, completion in bash, and the installed program."""

import re
import shutil
import subprocess

import common
import pytest
import tiny_model


def help_of(*words):
    return common.neoloom(0, "help", *words).expect(0).out


def commands():
    return re.findall(r"^  ([a-z]+) ", help_of().split("Subcommands:")[1].split("\n\n")[0], re.M)


def codes(text):
    return dict(re.findall(r"^ +(\d+)  (.+)$", text.split("Exit codes:")[1], re.M))


def test_the_help_of_every_command_has_examples_and_the_exit_codes():
    names = commands()
    assert {"init", "train", "predict", "help"} <= set(names)
    whole = help_of()
    for name in names:
        text = help_of(name)
        assert text == common.neoloom(0, name, "--help").expect(0).out
        assert text.count(f"\n  neoloom {name}") >= 2, text
        assert codes(text) == codes(whole)


def test_the_exit_codes_are_those_of_the_program_and_of_the_readme():
    told = {int(code) for code in codes(help_of())}
    header = (common.SOURCE / "runtime/core/error.h").read_text()
    kinds = {int(code) for code in re.findall(r"^  k\w+ = (\d+),", header, re.M)}
    assert told == kinds | {0, common.STOPPED}
    rows = re.findall(r"^\| ([\d, ]+) \| .* \| .* \|$|^\| (\d+) \| done", (common.SOURCE / "README.md").read_text(), re.M)
    assert told == {int(code) for row in rows for code in re.findall(r"\d+", "".join(row))}


def test_the_manual_page_is_clean_roff(tmp_path):
    page = tmp_path / "neoloom.1"
    page.write_text(help_of("--man"))
    names = commands()
    text = page.read_text()
    assert all(f".SS neoloom {name}" in text for name in names) and "\\fB\\-\\-validation\\fR" in text
    checkers = [["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-man", "-Tutf8", "-ww", "-z"]]
    found = [checker for checker in checkers if shutil.which(checker[0])]
    for checker in found:
        done = subprocess.run([*checker, page], capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    if not found:
        pytest.skip("neither mandoc nor groff")


def complete(script, *words):
    """Returns what bash offers for the last of the words."""
    listed = " ".join(f"'{word}'" for word in words)
    asked = f"source {script}; COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _neoloom; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-uc", asked], cwd=script.parent, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_bash_completes_commands_options_and_values(tmp_path):
    script = tmp_path / "neoloom"
    script.write_text(help_of("--completion", "bash"))
    assert complete(script, "neoloom", "pr") == ["prepare", "predict"]
    assert set(complete(script, "neoloom", "")) == {*commands(), "--help", "--version"}
    assert complete(script, "neoloom", "train", "--conf") == ["--config"]
    assert complete(script, "neoloom", "train", "--config", "run.yaml", "--dry") == ["--dry-run"]
    assert complete(script, "neoloom", "checkpoint", "ver") == ["verify"]
    assert complete(script, "neoloom", "export", "--format", "") == ["peft", "merged"]
    assert complete(script, "neoloom", "generate", "--repetition_penalty_counting", "dis") == ["distinct"]
    assert complete(script, "neoloom", "help", "ev") == ["evaluate"]
    assert complete(script, "neoloom", "train", "--config", "ru") == []  # bash then completes names of files
    assert "complete -o default" in script.read_text()


def test_bash_completes_files_where_one_may_stand(tmp_path):
    script = tmp_path / "script"
    script.write_text(help_of("--completion", "bash"))
    (tmp_path / "run").mkdir()
    files = {"script", "run"}
    # Without a word of ours, bash completes names of files.
    for words in (("train", "--config"), ("plan", "--ranks", "2", "--config"), ("predict", "--input"), ("status", "--run")):
        assert complete(script, "neoloom", *words, "") == []
    for words in (("init",), ("init", "--from", "a.json"), ("checkpoint", "list"), ("report", "--run", "a")):
        assert files | {"--help"} <= set(complete(script, "neoloom", *words, "")), words
        assert complete(script, "neoloom", *words, "--h") == ["--help"]
    assert set(complete(script, "neoloom", "train", "--resume", "")) == {"auto", "none", *files}
    assert not files & {*complete(script, "neoloom", "train", ""), *complete(script, "neoloom", "help", "")}
    assert complete(script, "neoloom", "doctor", "--device", "") == ["auto", "cpu", "cuda"]
    assert complete(script, "neoloom", "export", "--dtype", "=") == ["float32", "float16", "bfloat16"]
    assert complete(script, "neoloom", "export", "--dtype", "=", "b") == ["bfloat16"]
    assert complete(script, "neoloom", "plan", "--device", "h100") == ["h100", "h100-pcie"]
    assert complete(script, "neoloom", "train", "--config", "checkpoint", "--ver") == ["--verbose"]


def test_the_installed_program_works_where_it_was_put(tmp_path):
    prefix = tmp_path / "prefix"
    subprocess.run(["cmake", "--install", common.BUILD, "--prefix", prefix], check=True, capture_output=True, text=True)
    program = prefix / "bin/neoloom"
    assert "neoloom" in subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    assert (prefix / "share/man/man1/neoloom.1").read_text() == help_of("--man")
    assert (prefix / "share/bash-completion/completions/neoloom").read_text() == help_of("--completion", "bash")
    assert (prefix / "share/neoloom/configs/gpt_neo_125m_classification.yaml").is_file()
    pages = subprocess.run(["git", "ls-files", "*.md"], cwd=common.SOURCE, check=True, capture_output=True, text=True).stdout.split()
    assert "configs/KEYS.md" in pages
    assert [page for page in pages if not (prefix / "share/doc/neoloom" / page).is_file()] == [], "links between pages break"
    plugins = {path.name for path in common.BUILD.glob("libneoloom_*.so")}
    assert plugins == {path.name for path in (prefix / "bin").glob("*.so")} != set()
    # It finds its libraries, and begins with a file.
    base = tiny_model.make_model_folder(tmp_path / "base")
    tiny_model.write_classification_jsonl(tmp_path / "rows.jsonl", 30)
    subprocess.run([program, "init", "rows.jsonl", "--model", base], cwd=tmp_path, check=True, env=common.environment(),
                   capture_output=True)
    assert (tmp_path / "run.yaml").is_file()

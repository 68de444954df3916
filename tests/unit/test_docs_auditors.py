"""docs/auditors.md: each command on the page works, and answers what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from dicomnode.cli import cli
from tests.unit.auditors_case import build

PAGE = (Path(__file__).parents[2] / "docs" / "auditors.md").read_text(encoding="utf-8")
RULE = re.compile(r"[\s─━]+")


@dataclass(frozen=True)
class Example:
    """A command of the page and the lines shown below it; ``…`` stands for anything."""

    command: str
    answer: tuple[str, ...]


def examples() -> list[Example]:
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *answer = part.splitlines()
            found.append(Example(command, tuple(line for line in answer if RULE.sub("", line))))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hospital")
    build(made)
    return made


def run(folder: Path, command: str) -> tuple[int, str]:
    """``command`` in ``folder``; dicomnode in this process, python3 in one of its own without any package."""
    program, *arguments = shlex.split(command)
    if program == "python3":
        environment = {"PATH": os.environ["PATH"]}
        argv = [sys.executable, "-I", "-S", *arguments]
        done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr
    assert program == "dicomnode"
    answer = CliRunner().invoke(
        cli, arguments, env={"DICOMNODE_CONFIG": str(folder / "node.toml")}, standalone_mode=False
    )
    if answer.exception is not None:
        raise answer.exception
    return answer.return_value if isinstance(answer.return_value, int) else 0, answer.output


def test_the_page_answers_ten_questions_with_commands() -> None:
    """Someone who has never seen the project: ten numbered questions, each with a command and an answer."""
    questions = re.findall(r"^### (\d+)\. [^\n]*\?\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in questions] == list(range(1, 11))
    for number, text in questions:
        assert re.search(r"^\$ dicomnode audit ", text, re.MULTILINE), f"question {number} has no command"


def test_every_command_of_the_page_works_and_answers_as_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, as a reader would type them; a line of an answer that does not come is a fault."""
    monkeypatch.chdir(folder)
    shown = examples()
    assert len(shown) >= 15
    for example in shown:
        status, output = run(folder, example.command)
        assert status == 0, f"{example.command}: {output}"
        lines = [RULE.sub(" ", line).strip() for line in output.splitlines()]
        for expected in example.answer:
            pattern = ".*".join(re.escape(RULE.sub(" ", part)) for part in RULE.sub(" ", expected).strip().split("…"))
            assert any(re.fullmatch(pattern, line) for line in lines), (
                f"{example.command}: {expected!r} not in\n{output}"
            )


def test_the_check_of_answers_is_not_blind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    status, output = run(folder, "dicomnode audit list --patient PAT-1001")
    assert status == 0
    assert "PAT-1002" not in output
    assert "inference" in output


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`dicomnode audit (\w+)", PAGE))))
def test_every_command_that_the_page_names_exists(command: str) -> None:
    from dicomnode.cli.audit import audit

    assert command in audit.commands

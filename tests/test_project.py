"""What must hold for the repository as a whole: the checks of `make check`, and documents that do not lie."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from node.cli import main

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command",
    [
        pytest.param((BIN / "ruff", "format", "--check", "."), id="format"),
        pytest.param((BIN / "ruff", "check", "."), id="lint"),
        pytest.param((BIN / "mypy",), id="types"),
        pytest.param((BIN / "lint-imports",), id="import rules"),
        pytest.param(("scripts/proto.sh", "--check"), id="stubs are fresh"),
    ],
)
def test_the_static_checks_pass(command: tuple[str | Path, ...]) -> None:
    run(*command)


def commands(group: click.Group, before: str) -> list[str]:
    found = []
    for name, command in group.commands.items():
        found += commands(command, f"{before} {name}") if isinstance(command, click.Group) else [f"{before} {name}"]
    return found


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()

    missing = [command for command in commands(main, "shoal") if command not in readme]

    assert missing == []


def test_every_command_says_what_it_is_for() -> None:
    for name, command in main.commands.items():
        assert command.help, name


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for group in project["optional-dependencies"].values() for d in group)]
    pins = (ROOT / "constraints.txt").read_text()
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in pins.splitlines() if "==" in line}

    names = {re.sub(r"[-_.]+", "-", re.split(r"[<>=!;~ \[]", want)[0]).lower() for want in wanted}

    assert names - pinned == set()


def test_the_documents_name_only_files_that_exist() -> None:
    for document in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"):
        text = (ROOT / document).read_text()
        paths = re.findall(r"`((?:api|backends|bench|gallery|mesh|node|proto|scripts|tests)/[\w./]+\.\w+)`", text)

        assert [path for path in paths if not (ROOT / path).exists()] == [], document

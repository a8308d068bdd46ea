"""What README and docs tell people to type can be typed, and what they link to is there."""

import importlib
import re
import shlex
import typing
from pathlib import Path

import pytest

from vla.cli import config
from vla.cli.main import parse

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
FENCED = re.compile(r"```(?:bash|sh|console)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#]+)[^)]*\)")


def _commands() -> list[str]:
    commands = []
    for page in PAGES:
        for block in FENCED.findall(page.read_text(encoding="utf-8")):
            lines = block.replace("\\\n", " ").splitlines()
            commands += [line.strip() for line in lines if line.strip().startswith("vla ")]
    return sorted(set(commands))


def _make_paths_that_are_named(words: list[str], folder: Path) -> None:
    for word in words:
        key, _, value = word.partition("=")
        if key == "policy" and "/" in value:
            (folder / value).mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize("command", _commands())
def test_every_command_of_the_documentation_composes(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = shlex.split(command, comments=True)[1:]
    monkeypatch.chdir(tmp_path)
    _make_paths_that_are_named(words, tmp_path)
    request = parse(words)
    run = importlib.import_module(request.verb.module).run
    config_class = typing.get_type_hints(run)["cfg"]
    assert isinstance(
        config.compose(request.verb.config_name, config_class, request.overrides), config_class
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path):
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_shows_every_everyday_verb():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for verb in ("collect", "train", "eval", "deploy"):
        assert re.search(rf"^vla {verb} ", text, re.MULTILINE), verb

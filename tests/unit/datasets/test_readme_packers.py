"""The README's table of packers comes from the packers, and its commands pack what they say."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raysweep import registry
from raysweep.cli import app
from raysweep.data.pack import Pack
from tests.lookalikes import write_lookalike

README = Path(__file__).parents[3] / "README.md"
BLOCK = re.compile(r"(<!-- packers -->\n).*?(<!-- /packers -->)", re.DOTALL)


def rendered_packers() -> str:
    """Return the table of packers as Markdown."""
    lines = ["| packer | data | how to get it | the packer expects | splits | options |", "|---|---|---|---|---|---|"]
    for name in registry.names("datasets"):
        module = registry.load("datasets", name)
        about = module.ABOUT
        options = ", ".join(f"`{option}`" for option in module.Options.model_fields) or "none"
        lines.append(f"| `{name}` | {about.data} | {about.access} | {about.layout} | {about.splits} | {options} |")
    return "\n".join(lines) + "\n"


def test_table_is_that_of_the_packers():
    """RAYSWEEP_UPDATE_GOLDEN=1 writes it anew; read the difference before committing it."""
    text = README.read_text(encoding="utf-8")
    expected = BLOCK.sub(lambda match: match[1] + rendered_packers() + match[2], text)
    if os.environ.get("RAYSWEEP_UPDATE_GOLDEN"):
        README.write_text(expected, encoding="utf-8")
        text = expected
    assert BLOCK.search(text)
    assert text == expected


def pack_commands() -> list[list[str]]:
    text = README.read_text(encoding="utf-8")
    found = re.findall(r"^raysweep (pack .*)$", text, re.MULTILINE)
    return [shlex.split(command, comments=True) for command in found]


@pytest.mark.parametrize("words", pack_commands(), ids=lambda words: words[1])
def test_pack_commands_pack(words, tmp_path):
    dataset = words[1]
    if dataset == "synthetic-dead-leaves":
        words = [*words, "-o", "images=3"]
    if dataset == "synthetic-cardiac":
        words = [*words, "-o", "slices=1", "-o", "frames=2", "-o", "size_px=[40, 44]", "-o", "patients=3"]
    for position, word in enumerate(words):
        if word.startswith("~"):
            write_lookalike(dataset, tmp_path / "files")
            words[position] = str(tmp_path / "files")
    words[words.index("--out") + 1] = str(tmp_path / "p.h5")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert Pack.open(tmp_path / "p.h5").dataset == dataset


def test_options_of_the_commands_exist():
    for words in pack_commands():
        names = [words[n + 1].partition("=")[0] for n, word in enumerate(words) if word == "-o"]
        assert set(names) <= set(registry.load("datasets", words[1]).Options.model_fields)

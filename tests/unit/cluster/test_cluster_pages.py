"""The pages of cluster/ tell the truth: commands exist, what they render passes the check, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from raysweep.cli import app
from raysweep.cluster.check import check_file
from tests.unit.cluster.shipped import FOLDER, ROOT
from tests.unit.test_readme import arguments, command_path

PAGES = sorted(FOLDER.rglob("*.md"))


def command_lines(page: Path) -> list[str]:
    """Return the command lines of a page's shell blocks, comments and their spaces cut off."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [re.sub(r"\s+#.*", "", line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


COMMANDS = sorted({line for page in PAGES for line in command_lines(page)})
OURS = [line for line in COMMANDS if line.startswith("raysweep ")]
RENDERS = [line for line in OURS if line.startswith("raysweep cluster render")]
RAYS = [line for line in COMMANDS if re.match(r"(RAY_AUTH_MODE=token )?ray ", line)]


def test_there_are_commands_to_check():
    assert len(OURS) > 20
    assert len(RENDERS) >= 9
    assert len(RAYS) > 5


@pytest.mark.parametrize("line", OURS)
def test_command_line_is_accepted(line):
    words = arguments(line)
    path = command_path(words)
    assert words[: len(path)] == path


@pytest.mark.parametrize("line", RENDERS)
def test_what_a_page_renders_passes_the_check(line, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = arguments(line)
    at = words.index("--output") + 1
    words[at] = str(tmp_path / Path(words[at]).name)
    from typer.testing import CliRunner as Runner

    result = Runner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert [str(problem) for problem in check_file(Path(words[at])).problems] == []


@pytest.mark.parametrize("line", RAYS)
def test_rays_command_line_is_accepted(line):
    from ray.scripts.scripts import cli

    words = shlex.split(line.removeprefix("RAY_AUTH_MODE=token "))[1:]
    command = cli
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known
    assert CliRunner().invoke(command, ["--help"]).exit_code == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(FOLDER)))
def test_links_lead_somewhere(page):
    targets = [
        target for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")) if "://" not in target
    ]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_policy_of_the_store_allows_what_a_store_does_below_its_prefix_and_no_more():
    statements = json.loads((FOLDER / "store-policy-s3.json").read_text())["Statement"]
    actions = {action for statement in statements for action in statement["Action"]}
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:AbortMultipartUpload"} <= actions
    assert not any(
        "*" in action or "Policy" in action or "Bucket" in action.replace("ListBucket", "") for action in actions
    )
    objects = next(statement for statement in statements if "s3:PutObject" in statement["Action"])
    assert objects["Resource"].endswith("/raysweep/*")

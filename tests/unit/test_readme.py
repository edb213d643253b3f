"""The README tells the truth: its tables, commands, code, study and paths are those of the package."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from raysweep.cli import app
from raysweep.results.schemas import TABLES, VIEWS, Table
from raysweep.results.sql import query_tables
from raysweep.study.load import load_study, validate_study

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
QUICKSTART = ROOT / "search_spaces" / "quickstart.yaml"
TABLES_BLOCK = re.compile(r"(<!-- tables -->\n).*?(<!-- /tables -->)", re.DOTALL)
GROUP = typer.main.get_command(app)


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def block_with(language: str, text: str) -> str:
    """Return the one block of a language that holds a text."""
    (found,) = [block for block in blocks(language) if text in block]
    return found


def commands() -> list[str]:
    """Return every raysweep command line in a shell block of the README and of the contributing guide."""
    text = README.read_text(encoding="utf-8") + CONTRIBUTING.read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            found += re.findall(r"(?:^|&& |uv run )(raysweep .*)", line)
    return found


def arguments(command: str) -> list[str]:
    """Split a command line as a shell would, without its comment and its redirection."""
    words = shlex.split(command, comments=True)[1:]
    return words[: words.index(">")] if ">" in words else words


def command_path(words: list[str]) -> list[str]:
    """Parse a command line, and return the names of its command and subcommand: none where options stand alone."""
    if words[0].startswith("-"):
        GROUP.make_context("raysweep", list(words))
        return []
    with GROUP.make_context("raysweep", list(words)) as context:
        name, chosen, rest = GROUP.resolve_command(context, words)
        if not hasattr(chosen, "commands"):
            chosen.make_context(name, list(rest), parent=context)
            return [name]
        inner = chosen.make_context(name, list(rest), parent=context, resilient_parsing=True)
        second, chosen, rest = chosen.resolve_command(inner, rest)
        chosen.make_context(second, rest, parent=inner)
        return [name, second]


def test_there_are_commands_to_check():
    assert len(commands()) > 10


@pytest.mark.parametrize("command", commands())
def test_command_line_is_accepted(command):
    words = arguments(command)
    path = command_path(words)
    assert words[: len(path)] == path


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_every_command_has_an_example(name):
    assert any(arguments(command)[0] == name for command in commands())


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("raysweep query")])
def test_queries_fit_the_tables(command):
    query_tables({name: table.schema().empty_table() for name, table in TABLES.items()}, arguments(command)[1])


@pytest.mark.parametrize("command", [c for c in commands() if "--set" in c])
def test_overrides_fit_the_quickstart(command):
    words = arguments(command)
    load_study(QUICKSTART, [words[i + 1] for i, word in enumerate(words) if word == "--set"])


def test_tables_are_those_of_the_schemas():
    """RAYSWEEP_UPDATE_GOLDEN=1 writes them anew; read the difference before committing it."""
    text = README.read_text(encoding="utf-8")
    expected = TABLES_BLOCK.sub(lambda match: match[1] + rendered_tables() + match[2], text)
    if os.environ.get("RAYSWEEP_UPDATE_GOLDEN"):
        README.write_text(expected, encoding="utf-8")
        text = expected
    assert TABLES_BLOCK.search(text)
    assert text == expected


def rendered_tables() -> str:
    """Return the tables and views of the store as Markdown."""
    parts = [_rendered_table(table) for table in TABLES.values()]
    empty = {name: table.schema().empty_table() for name, table in TABLES.items()}
    for name, (doc, _) in VIEWS.items():
        columns = query_tables(empty, f"SELECT * FROM {name}").column_names
        parts.append(f"**View `{name}`**: {doc} Columns: {', '.join(f'`{column}`' for column in columns)}.\n")
    return "\n".join(parts)


def _rendered_table(table: Table) -> str:
    rows = [
        f"| `{column.name}`{'†' * column.volatile} | {_type_name(column.type)} | {column.doc} |"
        for column in table.columns
    ]
    head = [f"**`{table.name}`**: {table.doc}", "", "| column | type | meaning |", "|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def _type_name(kind) -> str:
    names = {"list<item: string>": "list of string", "timestamp[us, tz=UTC]": "timestamp, UTC"}
    text = str(kind)
    return "string" if text.startswith("dictionary") else names.get(text, text)


def test_annotated_study_is_the_quickstart():
    shown = yaml.safe_load(block_with("yaml", "study: quickstart"))
    assert validate_study(shown) == load_study(QUICKSTART)


@pytest.mark.parametrize("code", blocks("python"))
def test_names_in_python_code_exist(code):
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "raysweep":
            assert hasattr(importlib.import_module("raysweep"), node.attr)


@pytest.mark.parametrize("compacted", [False, True], ids=["loose", "compacted"])
def test_code_that_reads_the_store_runs(tmp_path, monkeypatch, capsys, compacted):
    from raysweep.ledger import LedgerRecord
    from raysweep.results.compact import compact
    from raysweep.store import Store
    from tests.simulate import simulated_study, write_to

    tables = simulated_study(annotations=(8, 30), epochs=2, num_subjects=3, name="quickstart")
    store = Store(tmp_path / "raysweep-store").prepare()
    write_to(store, tables, examples=False)
    if compacted:
        for stage in tables.stages["stage"].to_pylist()[1:]:
            store.record(LedgerRecord(stage, "done"))
        assert compact(store).num_rows_merged > 0
    monkeypatch.chdir(tmp_path)
    for text in ("import duckdb", "from raysweep.analysis import", "store.files("):
        values: dict = {}
        exec(compile(block_with("python", text), "README.md", "exec"), values)
        if text == "import duckdb":
            assert len(values["epochs"]) == tables.epochs.num_rows
            assert values["cases"].collect().height == sum(i > 0 for i in tables.cases["class_index"].to_pylist())
    assert f"│ {tables.epochs.num_rows} " in capsys.readouterr().out


def test_method_of_the_walk_through_trains(tmp_path, monkeypatch):
    import torch

    from raysweep.methods import Batch, Run
    from raysweep.settings import Backbone
    from raysweep.sources.encoder import build_encoder

    (tmp_path / "method_of_the_readme.py").write_text(block_with("python", "METHOD = "), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("method_of_the_readme")
    torch.manual_seed(0)
    encoder = build_encoder(Backbone(encoder="test_resnet"))
    run = Run(num_slices=6, batch_size=6, steps_per_epoch=1, total_steps=2, image_size=32)
    method = module.METHOD(module.METHOD.Settings(), encoder, run)
    views = [torch.rand(6, 1, 32, 32) for _ in method.views()]
    result = method.loss(Batch(views, torch.arange(6)))
    result["loss"].backward()
    assert bool(torch.isfinite(result["loss"]))
    assert all(parameter.grad is not None for parameter in method.trainable())


def test_paths_of_the_file_tree_exist():
    tree = block_with("text", "raysweep/sweep.py")
    paths = [line.split()[0] for line in tree.splitlines() if line.strip()]
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", [README, CONTRIBUTING], ids=["readme", "contributing"])
def test_links_within_the_repository_lead_somewhere(document):
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("http")]
    headings = {_anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for target in targets:
        assert target[1:] in headings if target.startswith("#") else (ROOT / target).exists(), target


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_tasks_of_the_readme_are_valid():
    from raysweep import registry

    tasks = yaml.safe_load(block_with("yaml", "kind: classification"))["tasks"]
    assert {task["kind"] for task in tasks.values()} == set(registry.names("tasks"))
    for task in tasks.values():
        kind = task.pop("kind")
        registry.load("tasks", kind).TASK.Settings.model_validate(task)

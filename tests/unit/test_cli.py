"""The command line as a person meets it: output, exit codes, errors."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars
import pyarrow.parquet as pq
import pytest
import yaml

from raysweep.cli import main
from raysweep.data.pack import Pack
from tests.conftest import CARDIAC_OPTIONS, LEAVES_OPTIONS
from tests.studies import study_document, with_changes

COMMANDS = (
    "pack", "inspect", "plan", "simulate", "run", "status", "report", "serve", "query", "compact", "list", "schema",
)  # fmt: skip
Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run a command in this process; return exit code, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raysweep", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cardiac_pack: Path, leaves_pack: Path) -> tuple[Path, Path]:
    """A study file and the store of its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    file = folder / "tiny.yaml"
    changes = {"grid.source": ["random"], "grid.method": [], "grid.pretrain_epochs": [], "grid.seed": [0, 1]}
    file.write_text(yaml.safe_dump(with_changes(study_document(str(cardiac_pack), str(leaves_pack)), changes)))
    from raysweep.sweep import run

    run(file, store=folder / "store", executor="inline")
    return file, folder / "store"


def test_help_imports_neither_torch_nor_ray_and_names_every_command() -> None:
    code = (
        "import sys; sys.argv = ['raysweep', '--help']\n"
        "from raysweep.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'ray', 'numpy', 'pyarrow', 'duckdb', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("what", ["plan", "run"])
def test_planning_and_a_rerun_of_what_is_done_import_neither_torch_nor_ray(
    what: str, finished: tuple[Path, Path]
) -> None:
    file, store = finished
    code = (
        f"import sys, raysweep; raysweep.{what}({str(file)!r}, store={str(store)!r})\n"
        "heavy = {'torch', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    ["pack", "inspect", "plan", "run", "status", "report", "serve", "query", "compact", "list", "schema", "simulate"],
)
def test_every_command_has_help_with_an_example(invoke: Invoke, command: str) -> None:
    code, out, _ = invoke(command, "--help")
    assert code == 0
    assert "Example: raysweep" in " ".join(out.split())


def test_pack_says_what_it_wrote_and_inspect_verifies_it(invoke: Invoke, tmp_path: Path) -> None:
    out = tmp_path / "leaves.h5"
    code, text, _ = invoke("pack", "synthetic-dead-leaves", "--out", str(out), "-o", "images=3", "-o", "size=32")
    assert code == 0
    assert "3 slices, 0 annotated, sha256:" in text
    assert len(Pack.open(out)) == 3
    sheet = tmp_path / "sheet.png"
    code, text, _ = invoke("inspect", str(out), "--sheet", str(sheet))
    assert code == 0
    assert "digest verified" in text
    assert sheet.read_bytes().startswith(b"\x89PNG")
    code, text, _ = invoke("inspect", str(out), "--json")
    assert json.loads(text)["slices"] == 3


def test_packing_on_demand_is_announced_and_happens_once(
    invoke: Invoke, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    document = with_changes(
        study_document(),
        {
            "packs.cardiac": {"dataset": "synthetic-cardiac", "options": CARDIAC_OPTIONS},
            "packs.leaves": {"dataset": "synthetic-dead-leaves", "options": LEAVES_OPTIONS},
        },
    )
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(document))
    arguments = ("plan", str(file), "--store", str(tmp_path / "store"))
    assert invoke(*arguments)[0] == 0
    assert "packing cardiac (synthetic-cardiac) into" in caplog.text
    packs = sorted(path.name.partition("-")[0] for path in (tmp_path / "store" / "packs").iterdir())
    assert packs == ["cardiac", "leaves"]
    caplog.clear()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "packs").iterdir()}
    assert invoke(*arguments)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "packs").iterdir()} == made
    assert not caplog.text


def test_plan_as_json_names_cells_and_stages(invoke: Invoke, finished: tuple[Path, Path]) -> None:
    file, store = finished
    code, out, _ = invoke("plan", str(file), "--store", str(store), "--set", "grid.seed=[0,1,2]", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["summary"]["num_cells"] == len(plan["cells"]) == 3
    assert [stage["done"] for stage in plan["stages"]] == [True, True, False]


def test_status_counts_stages(invoke: Invoke, finished: tuple[Path, Path]) -> None:
    file, store = finished
    code, out, _ = invoke("status", str(file), "--store", str(store), "--set", "grid.seed=[0,1,2]")
    assert code == 0
    assert "2 of 3 stages done, 0 failed, 1 open" in out


def test_a_rerun_says_that_nothing_is_to_do(invoke: Invoke, finished: tuple[Path, Path]) -> None:
    file, store = finished
    code, out, _ = invoke("run", str(file), "--store", str(store), "--executor", "inline", "--no-report")
    assert code == 0
    assert "nothing to do: all 2 stages of tiny are done" in out


def test_a_profiled_stage_leaves_its_trace_and_prints_its_breakdown(
    invoke: Invoke, finished: tuple[Path, Path], tmp_path: Path
) -> None:
    arguments = (str(finished[0]), "--executor", "inline", "--no-report", "--set", "grid.seed=[0]")
    cell = "heart/small/random/n4/s0"
    code, out, _ = invoke("run", *arguments, "--store", str(tmp_path / "store"), "--profile", cell)
    assert code == 0
    assert "profile of heart/small/random/n4/s0 (cpu, float32, 1 thread)" in out
    (trace,) = (tmp_path / "store" / "profiles").glob("*/trace.json")
    assert str(trace) in "".join(out.split())
    code, _, err = invoke("run", *arguments, "--store", str(tmp_path / "store"), "--profile", cell)
    assert code == 2
    assert "the stage is done and will not run again" in " ".join(err.split())


def test_report_is_written_where_asked(invoke: Invoke, finished: tuple[Path, Path], tmp_path: Path) -> None:
    file, store = finished
    code, out, _ = invoke("report", str(file), "--store", str(store), "--out", str(tmp_path / "page"))
    assert code == 0
    assert "2 of 2 cells finished" in out
    assert (tmp_path / "page" / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_report_prints_its_text_or_writes_tables_and_figures(
    invoke: Invoke, finished: tuple[Path, Path], tmp_path: Path
) -> None:
    file, store = finished
    code, out, _ = invoke("report", str(file), "--store", str(store), "--text")
    assert code == 0
    assert "2 of 2 cells finished" in out
    assert len(out.splitlines()) <= 30
    assert not (store / "reports").exists()
    out_folder = str(tmp_path / "out")
    code, out, _ = invoke(
        "report", str(file), "--store", str(store), "--out", out_folder, "--format", "tex", "--format", "svg"
    )
    assert code == 0
    assert "\\toprule" in (tmp_path / "out" / "tables" / "scores.tex").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "figures" / "score.svg").exists()
    code, _, err = invoke("report", str(file), "--store", str(store), "--watch")
    assert code == 2
    assert "--watch needs --out FOLDER" in err
    code, out, _ = invoke("report", str(file), "--store", str(store), "--watch", "--out", out_folder)
    assert "the study has ended" in out
    assert (tmp_path / "out" / "index.html").exists()


def test_compact_says_what_it_merged_and_answers_stay(
    invoke: Invoke, finished: tuple[Path, Path], tmp_path: Path
) -> None:
    store = shutil.copytree(finished[1], tmp_path / "store")
    sql = ("query", "SELECT * FROM trials ORDER BY cell", "--store", str(store), "--format", "csv")
    before = invoke(*sql)
    code, out, _ = invoke("compact", "--store", str(store))
    assert code == 0
    assert "6 files are now 3" in out
    assert invoke(*sql) == before
    _, out, _ = invoke("run", str(finished[0]), "--store", str(store), "--executor", "inline", "--no-report")
    assert "nothing to do" in out
    assert "nothing to merge" in invoke("compact", "--store", str(store))[1]


def test_query_of_one_study_or_source_reads_no_other(invoke: Invoke, finished: tuple[Path, Path]) -> None:
    ask = ("query", "SELECT count(*) AS n FROM stages", "--store", str(finished[1]), "--format", "csv")
    assert invoke(*ask, "--study", "tiny", "--source", "random")[1] == "n\n2\n"
    code, _, err = invoke(*ask, "--study", "tiny", "--source", "randon")
    assert code == 2
    assert "no source randon; its sources: random" in err


def test_query_prints_every_format(
    invoke: Invoke, finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(finished[1])
    sql = "SELECT source::VARCHAR AS source, seed, lineage FROM trials ORDER BY seed"
    code, out, _ = invoke("query", sql, "--store", store)
    assert code == 0
    assert "source" in out
    assert "random" in out
    _, out, _ = invoke("query", sql, "--store", store, "--format", "json")
    assert json.loads(out) == [{"source": "random", "seed": seed, "lineage": []} for seed in (0, 1)]
    _, out, _ = invoke("query", sql, "--store", store, "--format", "csv")
    assert polars.read_csv(io.StringIO(out))["seed"].to_list() == [0, 1]

    class Redirected(io.TextIOWrapper):
        def isatty(self) -> bool:
            return False

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Redirected(raw))
    invoke("query", sql, "--store", store, "--format", "parquet")
    assert pq.read_table(io.BytesIO(raw.getvalue()))["seed"].to_pylist() == [0, 1]


def test_a_failed_stage_is_exit_code_1_and_told_by_status(
    invoke: Invoke, finished: tuple[Path, Path], tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    arguments = (str(finished[0]), "--store", store, "--set", "tasks.heart.training.optimisation.lr=1.0e+30")
    code, _, err = invoke("run", *arguments, "--executor", "inline", "--no-report")
    assert code == 1
    assert "not finite in epoch 1" in " ".join(err.split())
    assert "--retry-failed" in err
    code, out, _ = invoke("status", *arguments)
    assert code == 1
    assert "2 failed" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("frobnicate",), "No such command"),
        (("run",), "Missing argument"),
        (("run", "nowhere.yaml"), "nowhere.yaml cannot be read"),
        (("run", "x.yaml", "--executor", "slurm"), "slurm"),
        (("inspect", "nowhere.h5"), "nowhere.h5"),
        (("pack", "adcd", "somewhere", "--out", "x.h5"), "Did you mean 'acdc'?"),
        (("query", "SELEC 1"), "the query failed"),
        (("list", "colours"), "colours"),
    ],
)
def test_wrong_use_is_exit_code_2_with_one_message(
    invoke: Invoke, arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = invoke(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("what", "name"), [("methods", "byol"), ("datasets", "acdc"), ("tasks", "segmentation"), ("tuning", "lora")]
)
def test_list_names_components_with_their_first_line(invoke: Invoke, what: str, name: str) -> None:
    code, out, _ = invoke("list", what)
    assert code == 0
    assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in out.splitlines())


def test_schema_is_json_schema(invoke: Invoke) -> None:
    code, out, _ = invoke("schema")
    assert code == 0
    assert json.loads(out)["$schema"].startswith("https://json-schema.org/")

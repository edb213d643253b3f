"""The commands `raysweep cluster list`, `render` and `check`."""

from __future__ import annotations

from dataclasses import fields

import pytest
from typer.testing import CliRunner

from raysweep.cli import app
from raysweep.cluster import KINDS
from raysweep.cluster.options import ClusterOptions, flag
from tests.unit.cluster.shipped import FOLDER, ROOT

RUNNER = CliRunner(env={"COLUMNS": "200"})


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_list_names_every_kind_with_its_options():
    output = RUNNER.invoke(app, ["cluster", "list"]).output
    for kind in KINDS.values():
        assert kind.name in output
        assert kind.doc in output


def test_help_of_render_has_every_option():
    output = RUNNER.invoke(app, ["cluster", "render", "--help"]).output
    assert [option.name for option in fields(ClusterOptions) if flag(option.name) not in output] == []


def test_every_option_belongs_to_a_kind():
    used = {name for kind in KINDS.values() for name in kind.options}
    assert used == {option.name for option in fields(ClusterOptions)}


def test_render_prints_what_the_check_then_accepts(tmp_path):
    printed = RUNNER.invoke(app, ["cluster", "render", "slurm", "--gpus", "4", "--store", "/shared/store"])
    assert printed.exit_code == 0
    (tmp_path / "study.sh").write_text(printed.output)
    checked = RUNNER.invoke(app, ["cluster", "check", str(tmp_path / "study.sh")])
    assert checked.exit_code == 0
    assert "Slurm job, no problem" in checked.output


def test_render_to_a_file_names_what_is_to_fill_in(tmp_path):
    result = RUNNER.invoke(app, ["cluster", "render", "aws", "--output", str(tmp_path / "cluster.yaml")])
    assert result.exit_code == 0
    assert "still to fill in" in result.output
    assert "ray up file for AWS" in (tmp_path / "cluster.yaml").read_text()


def test_zero_is_an_answer_and_not_the_default():
    output = RUNNER.invoke(app, ["cluster", "render", "slurm", "--gpus", "0", "--workers", "3"]).output
    assert "#SBATCH --nodes=3\n" in output
    assert "--gpus-per-node" not in output
    assert "hetjob" not in output


def test_repeated_hosts_are_head_and_workers():
    output = RUNNER.invoke(app, ["cluster", "render", "on-premise", "--host", "10.0.0.1", "--host", "10.0.0.2"]).output
    assert "head_ip: 10.0.0.1" in output
    assert "worker_ips: [10.0.0.2]" in output


def test_check_of_several_files_fails_if_one_breaks_a_rule(tmp_path):
    good = FOLDER / "aws/cluster.yaml"
    bad = tmp_path / "cluster.yaml"
    bad.write_text(good.read_text().replace("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"))
    result = RUNNER.invoke(app, ["cluster", "check", str(good), str(bad)])
    assert result.exit_code == 1
    assert f"{good}: ray up file, no problem" in result.output
    assert "ray up file, 1 problem\n" in result.output
    assert "authentication is off" in result.output

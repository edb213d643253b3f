"""``raysweep pack``: it ends well and says what it wrote."""

from typer.testing import CliRunner

from raysweep.cli import app
from raysweep.data.pack import Pack


def test_pack_says_how_many_slices_it_wrote(tmp_path):
    out = tmp_path / "leaves.h5"
    options = ["--option", "images=3", "--option", "size=32"]
    done = CliRunner().invoke(app, ["pack", "synthetic-dead-leaves", "--out", str(out), *options])
    assert done.exit_code == 0, done.output
    assert "3 slices, 0 annotated, sha256:" in done.output
    assert len(Pack.open(out)) == 3

"""Memory of packing does not grow with a file: a volume of a quarter gigabyte passes through a slice at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

SIDE, SLICES = 512, 240
NUM_BYTES = SIDE * SIDE * SLICES * 4
SCRIPT = """
import sys
from pathlib import Path
from raysweep.datasets import build_pack
if __name__ == "__main__":
    build_pack("nnunet", Path(sys.argv[1]), Path(sys.argv[2]), {"plane": "axial"}, workers=1)
    # Not getrusage's ru_maxrss: a process inherits that of the one that started it.
    (peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    print(int(peak.split()[1]) * 1024)
"""


@pytest.mark.heavy
def test_large_volume_takes_less_memory_than_itself(tmp_path, monkeypatch):
    files = tmp_path / "files"
    settings = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "bone": 1}, "file_ending": ".nii.gz"}
    monkeypatch.setattr(nibabel.openers.Opener, "default_compresslevel", 1)
    for name, dtype in (("imagesTr/big_0000", np.float32), ("labelsTr/big", np.uint8)):
        path = files / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        volume = np.zeros((SIDE, SIDE, SLICES), dtype)
        volume[100:200, 100:200] = np.arange(SLICES) % 2
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([-0.7, -0.7, 1.0, 1.0])), path)
    (files / "dataset.json").write_text(json.dumps(settings))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    result = subprocess.run(
        [sys.executable, str(script), str(files), str(tmp_path / "out.h5")],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) < NUM_BYTES
    assert (tmp_path / "out.h5").stat().st_size > NUM_BYTES

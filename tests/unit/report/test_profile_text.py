"""The breakdown of a profiled stage as text."""

import json

import pytest

from raysweep.errors import StoreError
from raysweep.report.profile import render_profile

FOUND = {
    "stage": "abc",
    "name": "heart/small",
    "device": "cpu",
    "precision": "float32",
    "threads": 1,
    "steps": 10,
    "steps_s": 2.0,
    "wall_s": 5.0,
    "traced_steps": [2, 4],
    "phases_s": {
        "data": 0.02,
        "augmentation": 0.2,
        "forward": 0.6,
        "backward": 1.1,
        "optimiser": 0.05,
        "evaluation": 1.5,
        "saving": 0.25,
    },
}


def test_breakdown_gives_every_phase_its_share_of_a_step(tiny_store):
    tiny_store.write_bytes(tiny_store.profile_path("abc", "breakdown.json"), json.dumps(FOUND).encode())
    lines = render_profile(tiny_store, "abc").splitlines()
    assert lines[0] == "profile of heart/small (cpu, float32, 1 thread)"
    shares = {line.split()[0]: line.split()[1:5] for line in lines if " ms" in line and line.startswith("  ")}
    assert shares["backward"][:4] == ["110.00", "ms", "55.0", "%"]
    assert shares["other"][:4] == ["3.00", "ms", "1.5", "%"]
    assert "  not forward or backward: 15.0 %, without augmentation 5.0 %" in lines
    assert "  evaluation         1.50 s" in lines
    assert lines[-2] == f"trace of steps 2 to 4: {tiny_store.uri}/profiles/abc/trace.json"


def test_a_stage_without_a_profile_is_an_error(tiny_store):
    with pytest.raises(StoreError, match="has no profile of stage abc"):
        render_profile(tiny_store, "abc")

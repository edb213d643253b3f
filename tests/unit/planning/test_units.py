"""What an annotation count counts, in the words of people."""

import pytest

from raysweep.planning import PackFacts


@pytest.mark.parametrize(
    ("volumes", "unit", "name"),
    [(30, "slice", "image"), (30, "volume", "image"), (30, "subject", "subject"), (10, "slice", "slice"),
     (10, "volume", "volume"), (10, "subject", "subject")],
)  # fmt: skip
def test_a_slice_that_is_its_whole_volume_is_an_image(volumes, unit, name):
    facts = PackFacts("/p", "p", 1, 4, 30, {"slice": 30, "volume": volumes, "subject": 5})
    assert facts.unit_name(unit) == name

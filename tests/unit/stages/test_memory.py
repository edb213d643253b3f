import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
import numpy as np
from raysweep.stages.memory import keep_freed_memory

def step():
    taken = [np.ones(3 * 2**20) for _ in range(5)]  # 24 MiB each

if "kept" in sys.argv:
    keep_freed_memory()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_memory_of_a_step_is_used_by_the_next_without_new_pages():
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", _FAULTS, mode], check=True, capture_output=True).stdout)
        for mode in ("kept", "as it is")
    }
    assert faults["kept"] < 200
    assert faults["as it is"] > 10 * faults["kept"]

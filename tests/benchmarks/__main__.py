"""``python -m tests.benchmarks [NAME ...]``: run benchmarks one after another and write their results."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import argparse
import importlib
import sys
from pathlib import Path

from tests.benchmarks.results_file import setup_facts, write_results

_FOLDER = Path(__file__).parent
_MACHINERY = {
    "__init__",
    "__main__",
    "lightly_peers",
    "measurement",
    "plain_grid",
    "pretraining_runs",
    "ray_cluster",
    "results_file",
    "training_setups",
}


def names() -> list[str]:
    """Return the names of the benchmarks."""
    return sorted({path.stem for path in _FOLDER.glob("*.py")} - _MACHINERY)


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; all by default")
    parser.add_argument("--out", type=Path, default=_FOLDER / "results", help="folder of the results files")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(names())):
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(names())}")
    for name in options.names or names():
        benchmark = importlib.import_module(f"tests.benchmarks.{name}")
        if options.list:
            print(f"{name:20s} {benchmark.DESCRIPTION}")
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        measurement = benchmark.run(quick=options.quick)
        page = write_results(options.out, name, benchmark.DESCRIPTION, measurement, setup_facts())
        print(page.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

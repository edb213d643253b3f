"""Benchmarks: ``python -m tests.benchmarks [NAME ...]``. A file is the registration.

A benchmark is a module with a ``DESCRIPTION`` and ``run(quick) -> Measurement``. It compares variants inside one run,
for on shared machines ratios hold where absolute numbers do not.
"""

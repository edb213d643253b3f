"""Executors: the queue of stages, run in this process or on Ray Tune."""

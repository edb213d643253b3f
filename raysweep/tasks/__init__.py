"""One file per downstream task; ``_task`` says what a task is."""

from raysweep.tasks._task import Evaluation, Task, TaskSettings, Validation

__all__ = ["Evaluation", "Task", "TaskSettings", "Validation"]

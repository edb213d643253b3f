"""What a report says about a study beyond its tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

from raysweep._version import __version__
from raysweep.analysis import Arm
from raysweep.ledger import FailureRecord
from raysweep.report.published import NOTHING_PUBLISHED, Publication, published
from raysweep.results.read import StudyTables
from raysweep.study import Study
from raysweep.study.protocol import protocol_line, protocol_lines

_DONE = "SELECT DISTINCT stage FROM stages WHERE status = 'done'"


@dataclass(frozen=True)
class StudyFacts:
    """What the study is, and where its numbers come from."""

    study: str
    description: str = ""
    protocol: str = ""
    """Name of the protocol, and what it repeats of a published one."""
    raysweep_version: str = ""
    created: str | None = None
    """When the report was made; left out of the page if None, so that equal results give equal pages."""
    provenance: tuple[tuple[str, str], ...] = ()
    """Label and value: pack digests, devices, commit, ..."""
    published: Publication = NOTHING_PUBLISHED


def study_facts(study: Study, tables: StudyTables, failures: Sequence[FailureRecord] = ()) -> StudyFacts:
    """Return what a report says of a study: its question, its protocol, and where its numbers come from.

    ``failures`` are the failed attempts of its stages.
    """
    run = tables.query(
        """
        SELECT DISTINCT device, precision, threads, versions FROM stages WHERE status = 'done' AND device IS NOT NULL
        ORDER BY ALL
        """
    ).to_pylist()
    packs = tables.query("SELECT DISTINCT pack FROM stages ORDER BY pack").to_pylist()
    versions = [", ".join(f"{name} {value}" for name, value in json.loads(row["versions"]).items()) for row in run]
    hardware = [f"{row['device']}, {row['precision']}, {row['threads']} threads" for row in run]
    shared = study.pretraining
    arms = list(dict.fromkeys(Arm.of(cell).label for cell in tables.cells.to_pylist()))
    provenance = [
        ("pack digests", ", ".join(row["pack"] for row in packs)),
        ("against the paper", "; ".join(line.strip() for line in protocol_lines(study)[1:])),
        ("of the scores", "; ".join(_notes(tables))),
        ("stopping", _stopping_text(study)),
        ("failed attempts", recovered_text(failures, set(tables.query(_DONE)["stage"].to_pylist()))),
        ("computed on", "; ".join(sorted(set(hardware)))),
        ("versions", "; ".join(sorted(set(versions)))),
        (
            "pretraining",
            f"schedule {shared.schedule}, seeds {shared.seeds}, {shared.image_size} px, batch {shared.batch_size}",
        ),
        *((f"task {name}", _task_text(study, name)) for name in study.task_names),
    ]
    return StudyFacts(
        study=study.study,
        description=study.description,
        protocol=protocol_line(study),
        raysweep_version=__version__,
        published=published(study.study, arms, study.task_names),
        provenance=tuple((label, text) for label, text in provenance if text),
    )


def recovered_text(failures: Sequence[FailureRecord], done: Container[str]) -> str:
    """Return how many attempts failed of stages that are done all the same, and of what; empty if none did."""
    recovered = [failure for failure in failures if failure.stage in done]
    if not recovered:
        return ""
    kinds = Counter(failure.kind for failure in recovered)
    stages = len({failure.stage for failure in recovered})
    causes = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
    return f"{len(recovered)}, of {stages} stage{'s' if stages > 1 else ''} done since ({causes})"


def _notes(tables: StudyTables) -> list[str]:
    """Return what stages say a reader of their scores must know, each once."""
    rows = tables.query(
        "SELECT DISTINCT unnest(notes) AS note FROM stages WHERE status = 'done' ORDER BY note"
    ).to_pylist()
    return [row["note"] for row in rows]


def _stopping_text(study: Study) -> str:
    """Return the rules by which the study did without some of its grid; empty if it ran everything."""
    stop = study.stop
    rules = []
    if stop.seeds == "decided":
        margin = "" if stop.margin is None else f", or lies within {stop.margin:g} of zero"
        rules.append(
            f"a comparison with {stop.reference} gets no more seeds once its interval excludes zero{margin}: Student's "
            f"t over seeds, looked at from seed {stop.min_seeds} on, at level 1 - {stop.alpha:g} / (looks x "
            "comparisons), so that all intervals of all looks hold at once with the stated probability if differences "
            "are normal"
        )
    if stop.pruning is not None:
        name = {"asha": "asynchronous successive halving", "median": "the median stopping rule"}[stop.pruning.scheduler]
        rules.append(
            "a fine-tuning whose validation score falls behind those of its task, backbone, tuning and annotation "
            f"count ends early ({name}, from epoch {stop.pruning.grace_epochs} on) and has no test score"
        )
    return "; ".join(rules)


def _task_text(study: Study, name: str) -> str:
    settings = study.task_settings(name)
    training = settings.training
    return (
        f"{study.tasks[name]['kind']} on {settings.pack}, {training.epochs} epochs of batch {training.batch_size} at "
        f"{training.image_size} px, steps {training.steps}, annotations by {settings.annotate_by}"
    )

"""The tables a store holds, column by column: one place for names, types, units and meaning.

Facts are written once by the worker that finds them (``stages``, ``epochs``, ``cases``); ``cells`` is written by the
plan and says which grid point is which stage; ``trials`` and ``curves`` are views that join the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from raysweep.errors import StoreError


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type and meaning.

    ``volatile`` marks what differs between two correct runs of the same stage (times, hosts, versions); everything else
    is reproduced bit for bit on the same hardware. ``since`` is the schema version that added it: a file of an older
    version has null there. Adding a column with the next version is all that a new column takes; a column never changes
    its type or its meaning, and none is taken away.
    """

    name: str
    type: pa.DataType
    doc: str
    volatile: bool = False
    since: int = 1


@dataclass(frozen=True)
class Table:
    """One table: its name, meaning and columns."""

    name: str
    doc: str
    columns: tuple[Column, ...]

    @property
    def version(self) -> int:
        """Version of the schema: that of its newest column."""
        return max(column.since for column in self.columns)

    def schema(self) -> pa.Schema:
        """Return the Arrow schema, with version and documentation in the metadata."""
        fields = [pa.field(c.name, c.type, metadata={"doc": c.doc}) for c in self.columns]
        return pa.schema(fields, metadata={"doc": self.doc, "raysweep_schema": f"{self.name}/{self.version}"})

    @property
    def facts(self) -> list[str]:
        """Names of the columns that two correct runs of the same stage share."""
        return [c.name for c in self.columns if not c.volatile]


_string, _int, _float, _bool = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_dictionary = pa.dictionary(pa.int32(), pa.string())
_time = pa.timestamp("us", tz="UTC")

CELLS = Table(
    "cells",
    "The grid points of a study and the stages that answer them; written by the plan.",
    (
        Column("study", _string, "name of the study"),
        Column("cell", _string, "readable name of the grid point, unique in the study"),
        Column("source", _dictionary, "name of the source: the chain that produced the encoder"),
        Column(
            "strategy",
            _dictionary,
            "what papers call the chain: random, generalist, in-domain, specialist, ...",
            since=2,
        ),
        Column("method", _dictionary, "pretraining method on the method axis; null where the source has none"),
        Column("pretrain_epochs", _int, "length on the pretrain_epochs axis; null where the source takes none from it"),
        Column("annotations", _int, "annotated units used for training: slices, volumes or subjects, as the task says"),
        Column("annotations_asked", _string, "annotation count as the study writes it: 15, 5% or all"),
        Column("seed", _int, "seed of the cell"),
        Column("task", _dictionary, "name of the downstream task in the study"),
        Column("backbone", _dictionary, "name of the encoder architecture in the study"),
        Column(
            "tuning", _dictionary, "what fine-tuning trains: full, frozen, or another mode by its name in the study"
        ),
        Column("stage", _string, "id of the finetune stage that answers this cell"),
        Column("lineage", pa.list_(_string), "ids of the pretrain stages before it, first to last"),
        Column(
            "annotation_unit",
            _dictionary,
            "what annotations counts: slice, volume, subject, or image where a slice is no part of a volume",
            since=3,
        ),
        Column("not_needed", _string, "why the study did without this cell; null if it was, or is to be, run", since=2),
    ),
)

STAGES = Table(
    "stages",
    "One row per stage that has ended: what it was, how it ended, what it cost.",
    (
        Column("stage", _string, "id of the stage: a hash of everything that determines its result"),
        Column("kind", _dictionary, "pretrain or finetune"),
        Column("status", _dictionary, "done, failed, or stopped by the study's scheduler"),
        Column("method", _dictionary, "pretraining method, or null for a finetune stage"),
        Column("task", _dictionary, "kind of task (segmentation, classification), or null for a pretrain stage"),
        Column("pack", _string, "digest of the pack it trained on"),
        Column("encoder", _dictionary, "timm name of the encoder"),
        Column("parent", _string, "stage whose snapshot it started from; null if none"),
        Column("parent_epoch", _int, "epoch of that snapshot"),
        Column("seed", _int, "seed of the stage"),
        Column(
            "drawn_seed", _int, "seed that an unseeded stage drew; null where seed was used", volatile=True, since=5
        ),
        Column("epochs", _int, "epochs trained"),
        Column("steps", _int, "optimiser steps taken"),
        Column("images", _int, "training images seen"),
        Column("num_train", _int, "training slices in use"),
        Column("best_epoch", _int, "epoch whose weights were tested"),
        Column("metric", _dictionary, "name of the score, for example dice or auc"),
        Column("val_score", _float, "score of the best epoch on the validation split, 0 to 1"),
        Column("test_score", _float, "score of the best epoch on the test split, 0 to 1"),
        Column("config", _string, "canonical JSON that the id is the hash of"),
        Column(
            "loading",
            _string,
            "JSON: what became of each key of its initial weights; null where it loaded none",
            since=2,
        ),
        Column("train_subset", pa.list_(_string), "slices trained on, as subject/frame/slice number"),
        Column("notes", pa.list_(_string), "what a reader of its scores must know; null if nothing", since=4),
        Column("error", _string, "what made it fail: the exception's last line; null if done"),
        Column(
            "shape",
            _string,
            "hash of what decides cost per epoch and memory: equal for stages that cost the same",
            since=2,
        ),
        Column("attempt", _int, "which attempt this was, from 1", volatile=True),
        Column("started_at", _time, "when the attempt that ended it started", volatile=True),
        Column("wall_s", _float, "seconds of training and evaluation, over all attempts", volatile=True),
        Column("device", _string, "device it ran on: cpu, or the GPU's name", volatile=True),
        Column("gpu_peak_bytes", _int, "most GPU memory it held at a time; null on a CPU", volatile=True, since=2),
        Column("gpu_total_bytes", _int, "memory of that GPU; null on a CPU", volatile=True, since=2),
        Column("precision", _string, "arithmetic used: float32, tf32, bfloat16 or float16", volatile=True),
        Column("threads", _int, "CPU threads used", volatile=True),
        Column("host", _string, "host name of the node", volatile=True),
        Column("versions", _string, "JSON: versions of raysweep, torch, timm and Python", volatile=True),
    ),
)

EPOCHS = Table(
    "epochs",
    "Metrics by epoch, one row a value.",
    (
        Column("stage", _string, "id of the stage"),
        Column("epoch", _int, "epoch, from 1; 0 is before training"),
        Column("step", _int, "optimiser steps taken so far"),
        Column("split", _dictionary, "train or val"),
        Column("metric", _dictionary, "name of the metric: loss, dice, auc, lr, feature_std, ..."),
        Column("value", _float, "value of the metric"),
        Column("elapsed_s", _float, "seconds of training so far", volatile=True),
    ),
)

CASES = Table(
    "cases",
    "What was scored of the test split: a row for each slice (or volume, or subject) and class or label; every score "
    "is a query over these.",
    (
        Column("stage", _string, "id of the finetune stage"),
        Column("split", _dictionary, "test (or val)"),
        Column("subject", _dictionary, "patient"),
        Column("volume", _dictionary, "volume (3-D image) the slice belongs to"),
        Column("frame", _int, "time frame of the volume, -1 if none"),
        Column("slice_number", _int, "position of the slice in its volume"),
        Column("class_index", _int, "label value"),
        Column("class_name", _dictionary, "label's name"),
        Column("tp", _int, "true positive pixels"),
        Column("fp", _int, "false positive pixels"),
        Column("fn", _int, "false negative pixels"),
        Column("tn", _int, "true negative pixels"),
        Column("dice", _float, "2 tp / (2 tp + fp + fn); null where the class is in neither mask"),
        Column("iou", _float, "tp / (tp + fp + fn); null where the class is in neither mask"),
        Column("unit", _dictionary, "what the row is about: slice, volume or subject; null means slice", since=4),
        Column("scored", _bool, "whether the class or label counts in the stage's score", since=4),
        Column(
            "score",
            _float,
            "what the row adds to the stage's score: the stage's metric, an absent class as the task's settings say; "
            "null where the row adds nothing, or the metric is no mean over cases",
            since=4,
        ),
        Column(
            "size_error",
            _float,
            "(fp - fn) / (tp + fn), relative error of area or volume; null where the class is not in the truth",
            since=4,
        ),
        Column(
            "hd95_mm",
            _float,
            "95 % quantile of the distance between outlines in mm; null where not asked for or neither mask has one",
            since=4,
        ),
        Column(
            "nsd",
            pa.list_(_float),
            "normalised surface Dice at each of the task's tolerances; null as hd95_mm",
            since=4,
        ),
        Column("probability", _float, "probability of the label, 0 to 1", since=4),
        Column("target", _float, "whether the label is there: 1 or 0; null where that is not known", since=4),
    ),
)

SNAPSHOTS = Table(
    "snapshots",
    "Encoders that pretrain stages published.",
    (
        Column("stage", _string, "id of the pretrain stage"),
        Column("epoch", _int, "epoch of the snapshot"),
        Column("path", _string, "file below the store's root"),
        Column("size_bytes", _int, "size of the file"),
        Column("digest", _string, "sha256 of the file"),
    ),
)

TABLES = {table.name: table for table in (CELLS, STAGES, EPOCHS, CASES, SNAPSHOTS)}


def check_version(metadata: Mapping[bytes, bytes] | None, path: str) -> None:
    """Refuse a file whose schema is newer than this raysweep.

    Raises:
        StoreError: naming the file and both versions.
    """
    name, _, version = (metadata or {}).get(b"raysweep_schema", b"/0").decode().partition("/")
    if name in TABLES and version.isdigit() and int(version) > TABLES[name].version:
        raise StoreError(
            f"{path} has version {version} of table {name}; this raysweep reads up to {TABLES[name].version}. "
            "Use the raysweep that wrote it."
        )


VIEWS = {
    "trials": (
        "One row per cell with the outcome of its finetune stage. Where that has not run, status is 'not needed' if "
        "the study did without it, 'skipped' if a pretraining before it failed (error says why), else 'pending'.",
        """
        WITH parents AS (
            SELECT study, cell, unnest(lineage) AS parent, generate_subscripts(lineage, 1) AS position FROM cells
        ),
        blocked AS (
            SELECT p.study, p.cell, arg_min(p.parent, p.position) AS parent, arg_min(f.error, p.position) AS error
            FROM parents p JOIN stages f ON f.stage = p.parent AND f.status = 'failed' GROUP BY p.study, p.cell
        )
        SELECT c.study, c.cell, c.source, c.strategy, c.method, c.pretrain_epochs, c.annotations,
               c.annotations_asked, c.annotation_unit, c.seed,
               c.task, c.backbone, c.tuning,
               CASE WHEN s.stage IS NOT NULL THEN s.status::VARCHAR WHEN c.not_needed IS NOT NULL THEN 'not needed'
                    WHEN b.parent IS NOT NULL THEN 'skipped' ELSE 'pending' END AS status,
               s.metric, s.val_score, s.test_score, s.best_epoch, s.epochs, s.steps, s.wall_s,
               CASE WHEN s.stage IS NOT NULL THEN s.error WHEN c.not_needed IS NOT NULL THEN c.not_needed
                    WHEN b.parent IS NOT NULL
                    THEN 'pretraining ' || b.parent || ' failed: ' || coalesce(b.error, 'no message') END AS error,
               c.stage, c.lineage
        FROM cells c LEFT JOIN stages s ON s.stage = c.stage
             LEFT JOIN blocked b ON b.study = c.study AND b.cell = c.cell
        """,
    ),
    "volumes": (
        "Counts and overlap of whole volumes: those of their test slices added up, by volume, time frame and class.",
        """
        SELECT stage, split, subject, volume, frame, class_index, class_name, count(*) AS num_slices,
               sum(tp)::BIGINT AS tp, sum(fp)::BIGINT AS fp, sum(fn)::BIGINT AS fn, sum(tn)::BIGINT AS tn,
               2 * sum(tp) / nullif(2 * sum(tp) + sum(fp) + sum(fn), 0)::DOUBLE AS dice,
               sum(tp) / nullif(sum(tp) + sum(fp) + sum(fn), 0)::DOUBLE AS iou,
               (sum(fp) - sum(fn)) / nullif(sum(tp) + sum(fn), 0)::DOUBLE AS size_error
        FROM cases WHERE tp IS NOT NULL AND coalesce(unit::VARCHAR, 'slice') = 'slice'
        GROUP BY ALL
        """,
    ),
    "curves": (
        "Validation and training metrics by epoch of every cell's finetune stage.",
        """
        SELECT c.study, c.cell, c.source, c.strategy, c.method, c.pretrain_epochs, c.annotations, c.seed, c.task,
               c.backbone, c.tuning, e.epoch, e.step, e.split, e.metric, e.value, e.elapsed_s, c.stage
        FROM cells c JOIN epochs e ON e.stage = c.stage
        """,
    ),
}

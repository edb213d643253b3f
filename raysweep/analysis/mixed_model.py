"""Mixed model: arms as fixed effects, seeds and subjects as crossed random ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raysweep.analysis._scores import ArmScores, arm_scores, by_count, known_arm
from raysweep.analysis._statistics import Array
from raysweep.analysis._tables import SETTING, answer_table
from raysweep.results.read import StudyTables

COLUMNS = {
    **SETTING,
    "annotations": pa.int64(),
    "arm": pa.string(),
    "reference": pa.string(),
    "difference": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "p": pa.float64(),
    "seed_sd": pa.float64(),
    "subject_sd": pa.float64(),
    "residual_sd": pa.float64(),
    "num_scores": pa.int64(),
    "converged": pa.bool_(),
}


def mixed_model(tables: StudyTables, reference: str | None = None, arms: Sequence[str] | None = None) -> pa.Table:
    """Return the difference of every arm to a reference at every annotation count, from one model of all scores.

    ``score = arm + seed + subject + rest`` with arms fixed, seeds and subjects crossed random intercepts and a normal
    rest, fitted by restricted maximum likelihood. ``low``, ``high`` and ``p`` are Wald's. It assumes that a seed, and
    a subject, shifts all arms alike: where that fails (some arms vary more between seeds than others) the intervals of
    ``comparison``, which assume nothing of the kind, are the ones to trust. Unlike them it uses every score also where
    cells are missing. Without a ``reference`` the first arm of the study is it. Null where the reference has no score.

    Raises:
        QueryError: if there is no such arm.

    Source: Baayen, Davidson & Bates 2008, Mixed-effects modeling with crossed random effects, J. Mem. Lang. 59(4).
    """
    entries = arm_scores(tables)
    for label in (*(arms or ()), *([] if reference is None else [reference])):
        known_arm(tables, entries, label)
    if arms is not None:
        entries = [entry for entry in entries if entry.arm.label in {*arms, reference}]
    rows: list[dict[str, Any]] = []
    for group in by_count(entries).values():
        base = group[0].arm.label if reference is None else reference
        rows.extend(_compare_group(group, base))
    return answer_table(rows, COLUMNS)


def _compare_group(group: Sequence[ArmScores], reference: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {**entry.setting.__dict__, "annotations": entry.annotations, "arm": entry.arm.label, "reference": reference}
        for entry in group
        if entry.arm.label != reference
    ]
    finished = sorted((e for e in group if np.isfinite(e.scores).any()), key=lambda e: e.arm.label != reference)
    if len(finished) < 2 or finished[0].arm.label != reference:
        return rows
    labels = [entry.arm.label for entry in finished]
    fitted = _fit(finished)
    if fitted is None:
        return rows
    for row in rows:
        if row["arm"] in labels:
            position = labels.index(row["arm"])
            row |= {
                name: values[position] if isinstance(values, np.ndarray) else values for name, values in fitted.items()
            }
    return rows


def _fit(entries: Sequence[ArmScores]) -> dict[str, Any] | None:
    """Fit the model; effects are those of ``entries`` against the first."""
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec
    from statsmodels.tools.sm_exceptions import ConvergenceWarning

    scores, arm, seed, subject = _long(entries)
    fixed = np.column_stack([np.ones(len(scores)), *(arm == k for k in range(1, len(entries)))]).astype(np.float64)
    effects = {name: level for name, level in (("seed", seed), ("subject", subject)) if len(np.unique(level)) > 1}
    if not effects or len(scores) <= fixed.shape[1]:
        return None
    columns = {name: np.unique(level, return_inverse=True) for name, level in effects.items()}
    designs = {name: np.eye(len(unique))[inverse] for name, (unique, inverse) in columns.items()}
    spec = VCSpec(
        list(designs),
        [[[str(i) for i in range(d.shape[1])]] for d in designs.values()],
        [[d] for d in designs.values()],
    )
    # Scores of 0 to 1 with a spread of hundredths are too flat for the optimiser: fitted in units of the spread.
    unit = float(scores.std()) or 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by ``converged``
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        model = MixedLM((scores - scores.mean()) / unit, fixed, np.zeros(len(scores)), exog_vc=spec)
        result = model.fit(reml=True, method=["lbfgs", "powell"])
    num = fixed.shape[1]
    bounds = result.conf_int()[:num] * unit
    sds = {f"{name}_sd": float(np.sqrt(max(v, 0))) * unit for name, v in zip(designs, result.vcomp, strict=True)}
    return {
        "difference": np.asarray(result.fe_params) * unit,
        "low": bounds[:, 0],
        "high": bounds[:, 1],
        "p": np.asarray(result.pvalues)[:num],
        **sds,
        "residual_sd": float(np.sqrt(result.scale)) * unit,
        "num_scores": len(scores),
        "converged": bool(result.converged),
    }


def _long(entries: Sequence[ArmScores]) -> tuple[Array, Array, Array, Array]:
    """Return score, arm, seed and subject of every score there is."""
    rows = [
        (score, number, seed, subject)
        for number, entry in enumerate(entries)
        for seed, by_subject in zip(entry.seeds, entry.scores, strict=True)
        for subject, score in zip(entry.subjects, by_subject, strict=True)
        if np.isfinite(score)
    ]
    return tuple(np.array([row[i] for row in rows]) for i in range(4))  # type: ignore[return-value]

"""What scores are, in the words that a report prints."""

from __future__ import annotations

from raysweep.report.findings import Findings

_CASES = "Mean over the scored classes of a case, then over a subject's cases, then over subjects and seeds"
_WHOLE = (
    "Of the whole test split, then the mean over seeds: intervals and tests speak of other seeds, not other patients"
)
_DEFINITIONS = {
    "auc": (
        "Area under the ROC curve, mean over the labels that some test cases have and some lack, then over seeds; a "
        "subject's share is its pseudo-value of the jackknife, so that intervals and tests speak of other patients too"
    ),
    "accuracy": "Share of labels, or of cases with one label, that are right, by subject, then over subjects and seeds",
    "auprc": _WHOLE,
    "balanced_accuracy": _WHOLE,
}


def score_definition(findings: Findings) -> str:
    """Return how a study's scores come about; of each metric, where tasks have several."""
    metrics = list(dict.fromkeys(row["metric"] for row in findings.scores if row["metric"]))
    texts = {_DEFINITIONS.get(metric, _CASES): metric for metric in metrics}
    if len(texts) <= 1:
        return next(iter(texts), _CASES)
    return ". ".join(f"{metric}: {text}" for text, metric in texts.items())

"""The HTML page and the terminal summary of a study."""

from raysweep.report.facts import StudyFacts, study_facts
from raysweep.report.page import build_report
from raysweep.report.published import Publication, PublishedFinding, PublishedNumber
from raysweep.report.terminal import terminal_summary

__all__ = [
    "Publication",
    "PublishedFinding",
    "PublishedNumber",
    "StudyFacts",
    "build_report",
    "study_facts",
    "terminal_summary",
]

"""The HTML page and the terminal summary of a study."""

from raysweep.report.facts import PublishedNumber, StudyFacts, study_facts
from raysweep.report.page import build_report, write_report
from raysweep.report.terminal import terminal_summary

__all__ = ["PublishedNumber", "StudyFacts", "build_report", "study_facts", "terminal_summary", "write_report"]

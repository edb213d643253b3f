"""The HTML page and the terminal summary of a study."""

from raysweep.report.facts import PublishedNumber, StudyFacts
from raysweep.report.page import build_report, write_report
from raysweep.report.terminal import terminal_summary

__all__ = ["PublishedNumber", "StudyFacts", "build_report", "terminal_summary", "write_report"]

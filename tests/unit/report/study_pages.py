"""Pages of simulated studies, and what a parser sees in them."""

from __future__ import annotations

from html.parser import HTMLParser

from raysweep.report import StudyFacts, build_report
from raysweep.results.read import StudyTables
from tests.simulate import simulated_examples, simulated_study

INLINE = {"strong", "span", "a", "b"}
VOID = {"meta", "link", "img", "input", "br", "hr"}


class PageParser(HTMLParser):
    """Collects what tests ask about, and the tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.mismatched: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.mismatched.append(tag)
        if tag not in INLINE:
            self.text.append(" ")

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def visible_text(self) -> str:
        return " ".join("".join(self.text).split())


def parse(page: str) -> PageParser:
    parser = PageParser()
    parser.feed(page)
    parser.close()
    return parser


def partial_study() -> StudyTables:
    return simulated_study(
        annotations=(8, 120),
        pretrain_epochs=(1, 25),
        epochs=8,
        pending=lambda cell: cell["source"] == "random" and cell["annotations"] == 120,
        failed=lambda cell: cell["source"] == "imagenet" and cell["seed"] == 1,
    )


def page_of(tables: StudyTables, facts: StudyFacts | None = None) -> str:
    return build_report(tables, lambda stage: simulated_examples(tables, stage), facts or StudyFacts(tables.study))

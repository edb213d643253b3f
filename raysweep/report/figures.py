"""The report's plots as files: SVG, PDF or PNG, with their legends, at a width that fits a page."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import vl_convert

from raysweep.report.plots import Panel

Format = Literal["svg", "pdf", "png"]
_WIDTH_PX = 420
_SCALE = 3.0
"""Pixels of a PNG per unit of length: 3 is 288 per inch."""


def figure(panel: Panel, kind: Format) -> bytes:
    """Return a panel as a file of its own."""
    spec = _standalone(panel)
    if kind == "svg":
        return str(vl_convert.vegalite_to_svg(spec)).encode()
    if kind == "pdf":
        return bytes(vl_convert.vegalite_to_pdf(spec))
    return bytes(vl_convert.vegalite_to_png(spec, scale=_SCALE))


def figures(sections: Mapping[str, list[Panel]], kind: Format) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every panel: ``score``, or ``curve-1``, ``curve-2`` where a section has several."""
    for name, panels in sections.items():
        for number, panel in enumerate(panels, start=1):
            yield (name if len(panels) == 1 else f"{name}-{number}"), figure(panel, kind)


def _standalone(panel: Panel) -> dict[str, Any]:
    spec = copy.deepcopy(panel.spec)
    spec.pop("autosize", None)
    spec["width"] = _WIDTH_PX
    spec["background"] = "white"
    spec["config"]["font"] = "DejaVu Sans, Liberation Sans, Arial, sans-serif"
    if panel.heading:
        spec["title"] = {"text": panel.heading, "anchor": "start", "fontSize": 12}
    _show_legends(spec)
    return spec


def _show_legends(node: Any) -> None:
    """Give series a legend again: the page draws one for all of its plots."""
    if isinstance(node, dict):
        for channel in ("color", "shape"):
            encoding = node.get(channel)
            if isinstance(encoding, dict) and encoding.get("field") == "series" and "legend" in encoding:
                encoding["legend"] = {"title": None, "orient": "bottom", "columns": 2, "labelLimit": 220}
        for value in node.values():
            _show_legends(value)
    elif isinstance(node, list):
        for value in node:
            _show_legends(value)

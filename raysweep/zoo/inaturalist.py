"""Supervised training on iNaturalist 2021, ResNet-50: fine-grained natural images."""

from __future__ import annotations

from raysweep.zoo._published import Published

_PAPER = "Van Horn et al. 2021, arXiv:2103.16483"
_PAGE = "https://github.com/visipedia/newt/tree/main/benchmark"
_ARCHIVE = (
    "download cvpr21_newt_pretrained_models.tar.gz (5.6 GB) from https://cornell.box.com/s/"
    "bnyhq5lwobu6fgjrub44zle0pyjijbmw, unpack it, and take pt/{file}"
)

WEIGHTS = (
    Published(
        name="inat2021",
        title="iNat2021 supervised, started from ImageNet",
        architecture="resnet50",
        objective="supervised",
        dataset="iNat2021",
        paper=_PAPER,
        published=_PAGE,
        studies=("taher-2021", "taher-2025"),
        adapted_from="ImageNet-1k supervised",
        click_through=_ARCHIVE.format(file="inat2021_supervised_large.pth.tar"),
    ),
    Published(
        name="inat2021-mini",
        title="iNat2021 mini supervised, started from ImageNet",
        architecture="resnet50",
        objective="supervised",
        dataset="iNat2021-mini",
        paper=_PAPER,
        published=_PAGE,
        studies=("taher-2021",),
        adapted_from="ImageNet-1k supervised",
        click_through=_ARCHIVE.format(file="inat2021_supervised_mini.pth.tar"),
    ),
    Published(
        name="inat2021-from-scratch",
        title="iNat2021 supervised, started from random weights",
        architecture="resnet50",
        objective="supervised",
        dataset="iNat2021",
        paper=_PAPER,
        published=_PAGE,
        studies=("taher-2025",),
        click_through=_ARCHIVE.format(file="inat2021_supervised_large_from_scratch.pth.tar"),
    ),
)

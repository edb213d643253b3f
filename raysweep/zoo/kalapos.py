"""What Kalapos & Gyires-Toth 2022 fine-tune: BYOL on ImageNet, and BYOL on ACDC, alone and after ImageNet."""

from __future__ import annotations

from raysweep.zoo._published import Published

_PAGE = "https://github.com/kaland313/SSL-MedSeg"
_PAPER = "Kalapos & Gyires-Toth 2022, doi:10.1007/978-3-031-25082-8_31"
_ARCHIVE = "https://github.com/kaland313/SSL-MedSeg/releases/download/v1.0/models.zip"


def _cardiac(name: str, title: str, member: str, prefix: str | None, adapted_from: str | None) -> Published:
    """Return one member of the authors' archive: momentum encoders after BYOL on ACDC's slices."""
    return Published(
        name=name,
        title=title,
        architecture="resnet50",
        objective="BYOL",
        dataset="ACDC",
        paper=_PAPER,
        published=_PAGE,
        studies=("kalapos-2022",),
        domain="medical",
        adapted_from=adapted_from,
        urls=(_ARCHIVE,),
        member=member,
        prefix=prefix,
        note="The input statistics of their pretraining were not verified: ImageNet's are assumed.",
    )


WEIGHTS = (
    Published(
        name="byol-yaox12",
        title="BYOL ImageNet in PyTorch: the generalist of the cardiac study",
        architecture="resnet50",
        objective="BYOL",
        dataset="ImageNet-1k",
        paper="Grill et al. 2020, arXiv:2006.07733",
        published="https://github.com/yaox12/BYOL-PyTorch",
        studies=("kalapos-2022",),
        prefix="target_backbone.module",
        click_through="download resnet50_byol_imagenet2012.pth.tar, to which the page links",
        note="The target encoder, as the study takes it.",
    ),
    _cardiac("byol-acdc", "Specialist: BYOL on ACDC, 400 epochs", "byol_acdc_backbone_last.pth", None, None),
    _cardiac(
        "imagenet-byol-acdc",
        "Hierarchical: ImageNet supervised, then BYOL on ACDC, 25 epochs",
        "supervised-imagenet-byol-acdc-ep=25.pth",
        "momentum_backbone",
        "ImageNet-1k supervised",
    ),
    _cardiac(
        "byol-byol-acdc",
        "Hierarchical: ImageNet BYOL, then BYOL on ACDC, 25 epochs",
        "byol-imagenet-acdc-ep=25.pth",
        "momentum_backbone",
        "ImageNet-1k BYOL",
    ),
    _cardiac(
        "byol-byol-acdc-34",
        "Hierarchical: ImageNet BYOL, then BYOL on ACDC, 34 epochs",
        "byol-imagenet-acdc-ep=34.ckpt",
        "momentum_backbone",
        "ImageNet-1k BYOL",
    ),
)

"""Chest radiographs: supervised and domain-adapted ResNet-50s, RAD-DINO, Ark+."""

from __future__ import annotations

from raysweep.zoo._published import Published

_TAHER = "Hosseinzadeh Taher et al. 2021, arXiv:2108.05930"
_PAGE = "https://github.com/jlianglab/BenchmarkTransferLearning"
_FILES = "https://zenodo.org/record/5205234/files"
_LICENCE = "ASU GitHub Project License"

WEIGHTS = (
    Published(
        name="chestxray14",
        title="ChestX-ray14 supervised",
        architecture="resnet50",
        objective="supervised",
        dataset="ChestX-ray14",
        paper=_TAHER,
        published=_PAGE,
        studies=("taher-2021",),
        domain="medical",
        urls=(f"{_FILES}/chestxray14.pth.tar?download=1",),
        licence=_LICENCE,
    ),
    Published(
        name="chexpert",
        title="CheXpert supervised",
        architecture="resnet50",
        objective="supervised",
        dataset="CheXpert",
        paper=_TAHER,
        published=_PAGE,
        studies=("taher-2021",),
        domain="medical",
        urls=(f"{_FILES}/chexpert.pth.tar?download=1",),
        prefix="module",
        licence=_LICENCE,
    ),
    Published(
        name="imagenet-chestxray14",
        title="ImageNet, then ChestX-ray14 supervised",
        architecture="resnet50",
        objective="supervised",
        dataset="ChestX-ray14",
        paper=_TAHER,
        published=_PAGE,
        studies=("taher-2021",),
        domain="medical",
        adapted_from="ImageNet-1k supervised",
        urls=(f"{_FILES}/ImageNet_chestxray14.pth.tar?download=1",),
        licence=_LICENCE,
    ),
    Published(
        name="imagenet-chexpert",
        title="ImageNet, then CheXpert supervised",
        architecture="resnet50",
        objective="supervised",
        dataset="CheXpert",
        paper=_TAHER,
        published=_PAGE,
        studies=("taher-2021",),
        domain="medical",
        adapted_from="ImageNet-1k supervised",
        urls=(f"{_FILES}/ImageNet_chexpert.pth.tar?download=1",),
        licence=_LICENCE,
    ),
    Published(
        name="rad-dino",
        title="RAD-DINO: DINOv2 continued on chest radiographs",
        architecture="vit_base_patch14_dinov2",
        objective="DINOv2",
        dataset="chest radiographs of five collections",
        paper="Perez-Garcia et al. 2025, arXiv:2401.10815",
        published="https://huggingface.co/microsoft/rad-dino",
        studies=("foundation",),
        domain="medical",
        adapted_from="LVD-142M DINOv2",
        # The model card's own statistics were not verified: None of them is invented here.
        click_through="accept the terms on the page and download model.safetensors",
        note="Its processor normalises with statistics of its own; give them as normalisation if they matter.",
    ),
    Published(
        name="ark-plus",
        title="Ark+: teacher Swin-L, 768 pixels",
        architecture="swin_large_patch4_window12_384",
        objective="Ark+ (supervised by many experts' labels)",
        dataset="chest radiographs of six collections",
        paper="Ma et al. 2025, Nature, A fully open AI foundation model applied to chest radiography",
        published="https://github.com/jlianglab/Ark",
        studies=("foundation",),
        domain="medical",
        adapted_from="ImageNet-22k supervised",
        licence=_LICENCE,
        click_through="request the Ark+ checkpoint through the form that the page links to",
        note="Give the backbone `options: {img_size: 768}`.",
    ),
)

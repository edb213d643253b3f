"""Clustering on ImageNet-1k, ResNet-50: SwAV, DeepCluster-v2, SeLa-v2, OBoW."""

from __future__ import annotations

from raysweep.zoo._published import Published

_SWAV = "https://github.com/facebookresearch/swav"
_FILES = "https://dl.fbaipublicfiles.com/deepcluster"
_PAPER = "Caron et al. 2020, arXiv:2006.09882"

WEIGHTS = (
    Published(
        name="swav",
        title="SwAV, 800 epochs",
        architecture="resnet50",
        objective="SwAV",
        dataset="ImageNet-1k",
        paper=_PAPER,
        published=_SWAV,
        studies=("taher-2021",),
        urls=(f"{_FILES}/swav_800ep_pretrain.pth.tar",),
        prefix="module",
    ),
    Published(
        name="deepcluster-v2",
        title="DeepCluster-v2, 800 epochs",
        architecture="resnet50",
        objective="DeepCluster-v2",
        dataset="ImageNet-1k",
        paper=_PAPER,
        published=_SWAV,
        studies=("taher-2021",),
        urls=(f"{_FILES}/deepclusterv2_800ep_pretrain.pth.tar",),
        prefix="module",
    ),
    Published(
        name="sela-v2",
        title="SeLa-v2, 400 epochs",
        architecture="resnet50",
        objective="SeLa-v2",
        dataset="ImageNet-1k",
        paper=_PAPER,
        published=_SWAV,
        studies=("taher-2021",),
        urls=(f"{_FILES}/selav2_400ep_pretrain.pth.tar",),
        prefix="module",
    ),
    Published(
        name="obow",
        title="OBoW, 200 epochs",
        architecture="resnet50",
        objective="OBoW",
        dataset="ImageNet-1k",
        paper="Gidaris et al. 2021, arXiv:2012.11552",
        published="https://github.com/valeoai/obow",
        studies=("taher-2025",),
        urls=(
            "https://github.com/valeoai/obow/releases/download/v0.1.0/"
            "ImageNetFull_ResNet50_OBoW_full_feature_extractor.zip",
        ),
        member="tochvision_resnet50_student_K8192_epoch200.pth.tar",
        note="The member's name is spelled as it is published.",
    ),
)

"""Contrastive training on ImageNet-1k, ResNet-50: InsDis, MoCo, PIRL, PCL, InfoMin, SimCLR, CLSA."""

from __future__ import annotations

from raysweep.zoo._published import UNIT, Published

_MOCO = "https://github.com/facebookresearch/moco"
_MOCO_FILES = "https://dl.fbaipublicfiles.com/moco/moco_checkpoints"
_PYCONTRAST = "https://github.com/HobbitLong/PyContrast/blob/master/pycontrast/docs/MODEL_ZOO.md"
_PCL = "https://github.com/salesforce/PCL"
_PCL_FILES = "https://storage.googleapis.com/sfr-pcl-data-research/PCL_checkpoint"
_SIMCLR = "https://github.com/google-research/simclr"
_SIMCLR_FILES = "https://storage.googleapis.com/simclr-checkpoints"
_DROPBOX = "open the page, follow its Dropbox folder, and download {file}"
_MAX_POOLING = "TensorFlow pads the max pooling of the stem on one side, timm on both: features differ by a fraction"

WEIGHTS = (
    Published(
        name="insdis",
        title="Instance discrimination, 200 epochs",
        architecture="resnet50",
        objective="InsDis",
        dataset="ImageNet-1k",
        paper="Wu et al. 2018, arXiv:1805.01978",
        published=_PYCONTRAST,
        studies=("taher-2021",),
        prefix="module.encoder",
        click_through=_DROPBOX.format(file="InsDis.pth"),
    ),
    Published(
        name="moco-v1",
        title="MoCo v1, 200 epochs",
        architecture="resnet50",
        objective="MoCo v1",
        dataset="ImageNet-1k",
        paper="He et al. 2020, arXiv:1911.05722",
        published=_MOCO,
        studies=("taher-2021",),
        urls=(f"{_MOCO_FILES}/moco_v1_200ep/moco_v1_200ep_pretrain.pth.tar",),
        prefix="module.encoder_q",
        licence="CC-BY-NC-4.0",
    ),
    Published(
        name="moco-v2",
        title="MoCo v2, 800 epochs",
        architecture="resnet50",
        objective="MoCo v2",
        dataset="ImageNet-1k",
        paper="Chen et al. 2020, arXiv:2003.04297",
        published=_MOCO,
        studies=("taher-2021",),
        urls=(f"{_MOCO_FILES}/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",),
        prefix="module.encoder_q",
        licence="CC-BY-NC-4.0",
    ),
    Published(
        name="pirl",
        title="PIRL, 800 epochs",
        architecture="resnet50",
        objective="PIRL",
        dataset="ImageNet-1k",
        paper="Misra & van der Maaten 2020, arXiv:1912.01991",
        published=_PYCONTRAST,
        studies=("taher-2021",),
        prefix="module.encoder",
        click_through=_DROPBOX.format(file="PIRL.pth"),
        note="The jigsaw branch (module.jigsaw, head_jig) is dropped.",
    ),
    Published(
        name="infomin",
        title="InfoMin, 800 epochs",
        architecture="resnet50",
        objective="InfoMin",
        dataset="ImageNet-1k",
        paper="Tian et al. 2020, arXiv:2005.10243",
        published=_PYCONTRAST,
        studies=("taher-2021",),
        prefix="module.encoder",
        click_through=_DROPBOX.format(file="InfoMin_800.pth"),
    ),
    Published(
        name="pcl-v1",
        title="PCL v1, 200 epochs",
        architecture="resnet50",
        objective="PCL v1",
        dataset="ImageNet-1k",
        paper="Li et al. 2021, arXiv:2005.04966",
        published=_PCL,
        studies=("taher-2021",),
        urls=(f"{_PCL_FILES}/PCL_v1_epoch200.pth.tar",),
        prefix="module.encoder_q",
    ),
    Published(
        name="pcl-v2",
        title="PCL v2, 200 epochs",
        architecture="resnet50",
        objective="PCL v2",
        dataset="ImageNet-1k",
        paper="Li et al. 2021, arXiv:2005.04966",
        published=_PCL,
        studies=("taher-2021",),
        urls=(f"{_PCL_FILES}/PCL_v2_epoch200.pth.tar",),
        prefix="module.encoder_q",
    ),
    Published(
        name="simclr-v1",
        title="SimCLR v1, 1000 epochs, width 1",
        architecture="resnet50",
        objective="SimCLR v1",
        dataset="ImageNet-1k",
        paper="Chen et al. 2020, arXiv:2002.05709",
        published=_SIMCLR,
        studies=("taher-2021",),
        urls=tuple(
            f"{_SIMCLR_FILES}/simclrv1/pretrain/1x/model.ckpt-225206.{part}"
            for part in ("index", "data-00000-of-00001")
        ),
        input=UNIT,
        licence="Apache-2.0",
        note=_MAX_POOLING,
    ),
    Published(
        name="simclr-v2",
        title="SimCLR v2, 800 epochs, width 1, no selective kernels",
        architecture="resnet50",
        objective="SimCLR v2",
        dataset="ImageNet-1k",
        paper="Chen et al. 2020, arXiv:2006.10029",
        published=_SIMCLR,
        studies=("taher-2021",),
        urls=tuple(
            f"{_SIMCLR_FILES}/simclrv2/pretrained/r50_1x_sk0/model.ckpt-250228.{part}"
            for part in ("index", "data-00000-of-00001")
        ),
        input=UNIT,
        licence="Apache-2.0",
        note=_MAX_POOLING,
    ),
    Published(
        name="clsa",
        title="CLSA, 800 epochs",
        architecture="resnet50",
        objective="CLSA",
        dataset="ImageNet-1k",
        paper="Wang & Qi 2021, arXiv:2104.07713",
        published="https://github.com/maple-research-lab/CLSA",
        studies=("taher-2025",),
        click_through="download the ResNet-50 checkpoint that the page links to",
    ),
)

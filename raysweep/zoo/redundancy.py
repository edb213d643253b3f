"""Joint embeddings without negatives on ImageNet-1k, ResNet-50: BYOL, SimSiam, Barlow Twins, VICRegL, DINO."""

from __future__ import annotations

from raysweep.zoo._published import Published

_FILES = "https://dl.fbaipublicfiles.com"

WEIGHTS = (
    Published(
        name="byol",
        title="BYOL, 1000 epochs, width 1",
        architecture="resnet50",
        objective="BYOL",
        dataset="ImageNet-1k",
        paper="Grill et al. 2020, arXiv:2006.07733",
        published="https://github.com/google-deepmind/deepmind-research/tree/master/byol",
        studies=("kalapos-2022", "taher-2021"),
        urls=("https://storage.googleapis.com/deepmind-byol/checkpoints/pretrain_res50x1.pkl",),
        prefix="experiment_state.online",
        licence="Apache-2.0",
        note="The online encoder, as the paper evaluates it, from haiku arrays.",
    ),
    Published(
        name="simsiam",
        title="SimSiam, 100 epochs, batch 256",
        architecture="resnet50",
        objective="SimSiam",
        dataset="ImageNet-1k",
        paper="Chen & He 2021, arXiv:2011.10566",
        published="https://github.com/facebookresearch/simsiam",
        studies=("taher-2025",),
        urls=(f"{_FILES}/simsiam/models/100ep-256bs/pretrain/checkpoint_0099.pth.tar",),
        prefix="module.encoder",
        licence="CC-BY-NC-4.0",
    ),
    Published(
        name="barlow-twins",
        title="Barlow Twins, 1000 epochs",
        architecture="resnet50",
        objective="Barlow Twins",
        dataset="ImageNet-1k",
        paper="Zbontar et al. 2021, arXiv:2103.03230",
        published="https://github.com/facebookresearch/barlowtwins",
        studies=("taher-2021",),
        urls=(f"{_FILES}/barlowtwins/ep1000_bs2048_lrw0.2_lrb0.0048_lambd0.0051/resnet50.pth",),
        licence="MIT",
    ),
    Published(
        name="vicregl",
        title="VICRegL, alpha 0.9",
        architecture="resnet50",
        objective="VICRegL",
        dataset="ImageNet-1k",
        paper="Bardes et al. 2022, arXiv:2210.01571",
        published="https://github.com/facebookresearch/VICRegL",
        studies=("taher-2025",),
        urls=(f"{_FILES}/vicregl/resnet50_alpha0.9.pth",),
    ),
    Published(
        name="vicregl-alpha-075",
        title="VICRegL, alpha 0.75: more weight on local features",
        architecture="resnet50",
        objective="VICRegL",
        dataset="ImageNet-1k",
        paper="Bardes et al. 2022, arXiv:2210.01571",
        published="https://github.com/facebookresearch/VICRegL",
        studies=("taher-2025",),
        urls=(f"{_FILES}/vicregl/resnet50_alpha0.75.pth",),
    ),
    Published(
        name="dino",
        title="DINO, ResNet-50, 800 epochs",
        architecture="resnet50",
        objective="DINO",
        dataset="ImageNet-1k",
        paper="Caron et al. 2021, arXiv:2104.14294",
        published="https://github.com/facebookresearch/dino",
        studies=("taher-2025",),
        urls=(f"{_FILES}/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",),
        licence="Apache-2.0",
    ),
)

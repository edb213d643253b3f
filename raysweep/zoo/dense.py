"""Self-supervision of dense features on ImageNet-1k, ResNet-50: PixPro, DenseCL, DetCo."""

from __future__ import annotations

from raysweep.zoo._published import Published

_LINK = "download {file}, to which the page links"

WEIGHTS = (
    Published(
        name="pixpro",
        title="PixPro, 400 epochs",
        architecture="resnet50",
        objective="PixPro",
        dataset="ImageNet-1k",
        paper="Xie et al. 2021, arXiv:2011.10043",
        published="https://github.com/zdaxie/PixPro",
        studies=("taher-2025",),
        prefix="model.module.encoder",
        licence="MIT",
        click_through=_LINK.format(file="pixpro_base_r50_400ep_md5_919c6612.pth"),
    ),
    Published(
        name="densecl",
        title="DenseCL, 200 epochs",
        architecture="resnet50",
        objective="DenseCL",
        dataset="ImageNet-1k",
        paper="Wang et al. 2021, arXiv:2011.09157",
        published="https://github.com/WXinlong/DenseCL",
        studies=("taher-2025",),
        click_through=_LINK.format(file="densecl_r50_imagenet_200ep.pth"),
    ),
    Published(
        name="detco",
        title="DetCo, 200 epochs",
        architecture="resnet50",
        objective="DetCo",
        dataset="ImageNet-1k",
        paper="Xie et al. 2021, arXiv:2102.04803",
        published="https://github.com/xieenze/DetCo",
        studies=("taher-2025",),
        click_through=_LINK.format(file="detco_200ep.pth"),
    ),
)

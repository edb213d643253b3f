"""General encoders of recent years as timm publishes them: DINOv2, DINOv3, MAE, CLIP, SigLIP, ConvNeXt V2, SAM."""

from __future__ import annotations

from raysweep.zoo._published import HALF, IMAGENET, Input, Published

_CLIP = Input((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def _timm(
    name: str, title: str, timm: str, made: tuple[str, str], paper: str, page: str, licence: str, seen: Input = IMAGENET
) -> Published:
    """Return weights that timm publishes, ``made`` being objective and data set."""
    return Published(
        name=name,
        title=title,
        architecture=timm.split(".")[0],
        objective=made[0],
        dataset=made[1],
        paper=paper,
        published=page,
        studies=("foundation",),
        timm=timm,
        input=seen,
        licence=licence,
    )


_V2 = (("DINOv2", "LVD-142M"), "Oquab et al. 2024, arXiv:2304.07193", "https://github.com/facebookresearch/dinov2")
_V3 = (("DINOv3", "LVD-1689M"), "Simeoni et al. 2025, arXiv:2508.10104", "https://github.com/facebookresearch/dinov3")
_MAE = (("MAE", "ImageNet-1k"), "He et al. 2022, arXiv:2111.06377", "https://github.com/facebookresearch/mae")
_OPENAI = (("CLIP", "WIT-400M"), "Radford et al. 2021, arXiv:2103.00020", "https://github.com/openai/CLIP")
_CONVNEXT_V2 = "https://github.com/facebookresearch/ConvNeXt-V2"
_FCMAE = (("FCMAE", "ImageNet-1k"), "Woo et al. 2023, arXiv:2301.00808", _CONVNEXT_V2)
_GOOGLE = "https://github.com/google-research/big_vision"
_SIGLIP = (("SigLIP", "WebLI"), "Zhai et al. 2023, arXiv:2303.15343", _GOOGLE)
_SIGLIP2 = (("SigLIP 2", "WebLI"), "Tschannen et al. 2025, arXiv:2502.14786", _GOOGLE)
_SAM = (
    ("promptable segmentation", "SA-1B"),
    "Kirillov et al. 2023, arXiv:2304.02643",
    "https://github.com/facebookresearch/segment-anything",
)
_DINO = (("DINO", "ImageNet-1k"), "Caron et al. 2021, arXiv:2104.14294", "https://github.com/facebookresearch/dino")

WEIGHTS = (
    _timm("dinov2-small", "DINOv2 ViT-S/14", "vit_small_patch14_dinov2.lvd142m", *_V2, "Apache-2.0"),
    _timm("dinov2-base", "DINOv2 ViT-B/14", "vit_base_patch14_dinov2.lvd142m", *_V2, "Apache-2.0"),
    _timm("dinov3-small", "DINOv3 ViT-S/16", "vit_small_patch16_dinov3.lvd1689m", *_V3, "DINOv3 License"),
    _timm("dinov3-base", "DINOv3 ViT-B/16", "vit_base_patch16_dinov3.lvd1689m", *_V3, "DINOv3 License"),
    _timm("dinov3-convnext-tiny", "DINOv3 ConvNeXt-T", "convnext_tiny.dinov3_lvd1689m", *_V3, "DINOv3 License"),
    _timm("dino-small", "DINO ViT-S/16", "vit_small_patch16_224.dino", *_DINO, "Apache-2.0"),
    _timm("mae-base", "MAE ViT-B/16", "vit_base_patch16_224.mae", *_MAE, "CC-BY-NC-4.0"),
    _timm("clip-base", "CLIP ViT-B/16 image encoder", "vit_base_patch16_clip_224.openai", *_OPENAI, "MIT", _CLIP),
    _timm("siglip-base", "SigLIP ViT-B/16", "vit_base_patch16_siglip_224.webli", *_SIGLIP, "Apache-2.0", HALF),
    _timm("siglip2-base", "SigLIP 2 ViT-B/16", "vit_base_patch16_siglip_224.v2_webli", *_SIGLIP2, "Apache-2.0", HALF),
    _timm("convnextv2-tiny", "ConvNeXt V2-T", "convnextv2_tiny.fcmae", *_FCMAE, "CC-BY-NC-4.0"),
    _timm("convnextv2-base", "ConvNeXt V2-B", "convnextv2_base.fcmae", *_FCMAE, "CC-BY-NC-4.0"),
    _timm("sam-base", "SAM ViT-B image encoder", "samvit_base_patch16.sa1b", *_SAM, "Apache-2.0"),
)

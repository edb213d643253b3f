"""Medical images of many kinds: RadImageNet, BiomedCLIP's and MedSAM's image encoders."""

from __future__ import annotations

from raysweep.zoo._published import HALF, IMAGENET, Published

WEIGHTS = (
    Published(
        name="radimagenet",
        title="RadImageNet supervised ResNet-50",
        architecture="resnet50",
        objective="supervised",
        dataset="RadImageNet",
        paper="Mei et al. 2022, Radiology: Artificial Intelligence 4(5)",
        published="https://github.com/BMEII-AI/RadImageNet",
        studies=("foundation",),
        domain="medical",
        input=HALF,
        prefix="backbone",
        click_through="download RadImageNet_pytorch.zip, to which the page links, and take ResNet50.pt",
        note="Its keys number the children of the network. Input scaled to [-1, 1] as the page's examples do.",
    ),
    Published(
        name="biomedclip",
        title="BiomedCLIP image encoder",
        architecture="vit_base_patch16_224",
        objective="CLIP",
        dataset="PMC-15M",
        paper="Zhang et al. 2023, arXiv:2303.00915",
        published="https://huggingface.co/microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        studies=("foundation",),
        domain="medical",
        prefix="visual.trunk",
        licence="MIT",
        click_through="download open_clip_pytorch_model.bin from the page's files",
    ),
    Published(
        name="medsam",
        title="MedSAM image encoder",
        architecture="samvit_base_patch16",
        objective="promptable segmentation",
        dataset="medical image-mask pairs of ten modalities",
        paper="Ma et al. 2024, Nature Communications 15, 654",
        published="https://github.com/bowang-lab/MedSAM",
        studies=("foundation",),
        domain="medical",
        adapted_from="SA-1B segment anything",
        input=IMAGENET,
        prefix="image_encoder",
        licence="Apache-2.0",
        click_through="download medsam_vit_b.pth, to which the page links",
        note="MedSAM feeds images scaled to [0, 1]; SAM, whose weights it continues, normalises as ImageNet.",
    ),
)

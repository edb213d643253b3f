"""What every entry of the zoo must say, and that it agrees with timm where timm publishes the same weights."""

from __future__ import annotations

import re

import pytest
import timm

from raysweep import registry, zoo
from raysweep.zoo import Published

ENTRIES = zoo.weights()

TAHER_2021 = {
    *("imagenet", "inat2021", "inat2021-mini", "chestxray14", "chexpert", "imagenet-chestxray14", "imagenet-chexpert"),
    *("insdis", "moco-v1", "moco-v2", "simclr-v1", "simclr-v2", "byol", "pirl", "deepcluster-v2", "sela-v2"),
    *("infomin", "pcl-v1", "pcl-v2", "swav", "barlow-twins"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_names_an_architecture_a_paper_a_place_and_who_compares_it(name):
    entry = ENTRIES[name]
    assert timm.is_model(entry.architecture)
    assert re.search(r"(arXiv:\d{4}\.\d{4,5}|doi:10\.|\d{4}, Nature|\d{4}, Radiology)", entry.paper)
    assert entry.published.startswith("https://")
    assert entry.studies
    assert all(0 <= mean < 1 for mean in entry.input.mean)
    assert all(0 < std <= 1 for std in entry.input.std)


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.timm is not None])
def test_an_entry_of_timm_has_the_tag_the_input_and_the_licence_that_timm_records(name):
    entry = ENTRIES[name]
    config = timm.get_pretrained_cfg(entry.timm, allow_unregistered=False)
    assert config is not None
    assert entry.timm in timm.list_pretrained(entry.architecture + ".*")
    assert entry.input.mean == tuple(config.mean)
    assert entry.input.std == tuple(config.std)
    # CLIP's publisher says MIT; timm records its own licence for that conversion.
    if name != "clip-base":
        assert entry.licence.lower().replace(" ", "-") == config.license


def test_all_21_sources_of_taher_2021_but_random_are_there():
    found = {name for name, entry in ENTRIES.items() if "taher-2021" in entry.studies}
    assert len(TAHER_2021) == 21
    assert found == TAHER_2021 | {"imagenet-torchvision"}
    assert {ENTRIES[name].architecture for name in found} == {"resnet50"}


def test_every_start_of_the_cardiac_study_and_every_addition_of_the_successor_is_there():
    objectives = {entry.objective for entry in ENTRIES.values() if "taher-2025" in entry.studies}
    assert objectives >= {"VICRegL", "DINO", "SimSiam", "OBoW", "CLSA", "PixPro", "DenseCL", "DetCo", "supervised"}
    cardiac = {name for name, entry in ENTRIES.items() if "kalapos-2022" in entry.studies}
    assert cardiac >= {"imagenet", "byol-yaox12", "byol-acdc", "imagenet-byol-acdc", "byol-byol-acdc-34"}


def test_every_family_is_a_module_with_a_first_line():
    assert set(registry.names("zoo")) >= {"imagenet", "contrastive", "clustering", "chest", "foundation", "kalapos"}
    assert all(registry.describe("zoo").values())


GOOD = {
    "name": "a",
    "title": "A",
    "architecture": "resnet50",
    "objective": "x",
    "dataset": "y",
    "paper": "z",
    "published": "https://a.org",
    "studies": ("foundation",),
    "urls": ("https://a.org/w.pth",),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "A b"}, "lower-case"),
        ({"architecture": "resnet50.a1_in1k"}, "without a tag"),
        ({"timm": "resnet18.a1_in1k", "urls": ()}, "not of architecture"),
        ({"timm": "resnet50.a1_in1k"}, "either timm or urls"),
        ({"sha256": "abc"}, "not a SHA-256"),
        ({"urls": ()}, "how a person gets the file"),
        ({"urls": ("ftp://a.org/w.pth",)}, "not an https address"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(changes, message):
    Published(**GOOD)
    with pytest.raises(ValueError, match=message):
        Published(**{**GOOD, **changes})

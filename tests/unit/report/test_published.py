"""Published numbers find the arms and tasks of a study that repeats the publication."""

import pytest

from raysweep.report.published import STUDIES, published


def by_arm(publication):
    return {(number.arm, number.task): number for number in publication.numbers}


def test_initialisations_and_tasks_are_those_of_the_study_under_its_names():
    arms = ["random", "imagenet-supervised", "imagenet-chexpert · supervised · 50 ep", "chexpert"]
    numbers = by_arm(published("taher2021_domain_adaptive", arms, ["dxc14", "pxs"]))
    assert numbers["random", "dxc14"].value == pytest.approx(0.8031)
    assert numbers["random", "dxc14"].spread == pytest.approx(0.0010)
    assert numbers["imagenet-supervised", "pxs"].value == pytest.approx(0.6793)
    assert numbers["imagenet-chexpert · supervised · 50 ep", "dxc14"].value == pytest.approx(0.8225)
    assert numbers["chexpert", "pxs"].value == pytest.approx(0.6930)
    assert ("ImageNet -> ChestX-ray14", "pxs") in numbers  # the study has no such arm: the published name
    assert {task for _, task in numbers} == {"dxc14", "pxs"}
    assert (numbers["random", "dxc14"].metric, numbers["random", "pxs"].metric) == ("auc", "dice")


def test_values_read_off_a_chart_say_so():
    numbers = by_arm(published("taher2021_ssl_imagenet", ["imagenet-byol", "swav"], ["PXS"]))
    assert numbers["imagenet-byol", "PXS"].value == pytest.approx(0.700)
    assert numbers["swav", "PXS"].value == pytest.approx(0.7045)
    assert all("chart" in number.reference and number.spread is None for number in numbers.values())


@pytest.mark.parametrize("study", ["kalapos2022_data_efficiency", "kalapos2022_convergence"])
def test_findings_in_words_come_with_every_study_of_the_publication(study):
    found = published(study, ["random"], ["acdc"])
    assert found.numbers == ()
    assert {finding.topic for finding in found.findings} == {"convergence", "lengths", "annotations", "best"}


def test_a_study_of_its_own_gets_nothing():
    assert published("quickstart", ["random"], ["heart"]).findings == ()


def test_every_number_is_a_share():
    for publication in STUDIES.values():
        assert all(0.5 < number.value < 1 for number in publication.numbers)
        assert all(number.spread is None or 0 < number.spread < 0.02 for number in publication.numbers)

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from raysweep import registry
from raysweep.errors import StudyError
from raysweep.methods import _collapse
from raysweep.methods._momentum import cosine_tau, momentum_copy, update_momentum
from raysweep.methods.byol import BYOLSettings
from raysweep.methods.simclr import SimCLR, SimCLRSettings
from raysweep.settings import TRANSFORMER
from raysweep.sources.encoder import build_encoder
from tests.pretraining import CONV, small_run


@pytest.mark.parametrize("name", registry.names("methods"))
def test_settings_of_a_method_need_no_torch(name):
    code = (
        "import sys; from raysweep import registry; "
        f"module = registry.load('methods', {name!r}); module.METHOD.Settings().views(224); "
        "sys.exit(sorted({'torch', 'timm', 'lightly'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_feature_std_is_one_on_the_sphere_and_zero_for_a_single_point():
    generator = torch.Generator().manual_seed(0)
    uniform = torch.randn(4000, 32, generator=generator)
    assert float(_collapse.feature_std(uniform)) == pytest.approx(1, abs=0.02)
    assert float(_collapse.feature_std(torch.ones(50, 32) * torch.rand(50, 1))) == pytest.approx(0, abs=1e-5)


def test_effective_rank_counts_equal_directions():
    for rank in (1, 3, 8):
        features = torch.zeros(24, 10)
        features[torch.arange(24), torch.arange(24) % rank] = 2.0
        assert float(_collapse.effective_rank(features)) == pytest.approx(rank, rel=1e-4)


def test_effective_rank_equals_the_entropy_of_the_singular_values():
    features = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    share = torch.linalg.svd(features.double()).S
    share = share / share.sum()
    expected = torch.exp(-(share * share.log()).sum())
    assert float(_collapse.effective_rank(features)) == pytest.approx(float(expected), rel=1e-5)


def test_collapse_metrics_are_finite_for_dead_features_and_carry_no_gradient():
    metrics = _collapse.collapse_metrics(torch.zeros(5, 4, requires_grad=True))
    assert set(metrics) == {"feature_std", "effective_rank"}
    assert all(bool(torch.isfinite(value)) and not value.requires_grad for value in metrics.values())


def test_momentum_copy_takes_no_gradient_and_moves_by_its_formula():
    torch.manual_seed(0)
    online = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    momentum = momentum_copy(online)
    assert not any(p.requires_grad for p in momentum.parameters())
    before = [p.clone() for p in momentum.parameters()]
    with torch.no_grad():
        for p in online.parameters():
            p.add_(1)
    online[1].running_mean.fill_(5)
    update_momentum(online, momentum, 0.9)
    for old, new, source in zip(before, momentum.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * source)
    assert bool((momentum[1].running_mean == 0).all())


def test_momentum_rises_to_one_along_half_a_cosine():
    assert cosine_tau(0.99, 0, 200) == pytest.approx(0.99, abs=1e-15)
    assert cosine_tau(0.99, 100, 200) == pytest.approx(0.995, abs=1e-12)
    assert cosine_tau(0.99, 200, 200) == 1


def test_encoder_of_a_type_that_the_method_cannot_train_is_refused(monkeypatch):
    monkeypatch.setattr(SimCLR, "encoder_types", frozenset({TRANSFORMER}))
    with pytest.raises(StudyError, match="'simclr' trains transformer encoders, but 'test_resnet' is convol"):
        SimCLR(SimCLR.Settings(), build_encoder(CONV), small_run())


def test_changing_one_key_keeps_the_other_defaults_of_the_method():
    changed = SimCLRSettings.model_validate({"optimisation": {"lr": 0.5}, "augmentation": {"blur_p": 0}})
    default = SimCLRSettings()
    assert changed.optimisation == default.optimisation.model_copy(update={"lr": 0.5})
    assert changed.augmentation == default.augmentation.model_copy(update={"blur_p": 0.0})
    nested = BYOLSettings.model_validate({"second": {"augmentation": {"flip_p": 0.1}}}).second
    expected = BYOLSettings().second.augmentation.model_copy(update={"flip_p": 0.1})
    assert nested.augmentation == expected


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"augmentation": {"blurp": 0}}, "augmentation.blurp"),
        ({"augmentation": {"views": 0}}, "augmentation.views"),
        ({"optimisation": {"lr": "fast"}}, "optimisation.lr"),
        ({"optimisation": 3}, "optimisation"),
        ({"nothing": {}}, "nothing"),
    ],
)
def test_wrong_settings_are_refused_where_they_stand(given, where):
    with pytest.raises(ValidationError) as caught:
        SimCLRSettings.model_validate(given)
    assert [".".join(map(str, error["loc"])) for error in caught.value.errors()] == [where]

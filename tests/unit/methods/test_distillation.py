"""Distillation losses against the equations of their papers, number by number."""

import math

import pytest
import torch

from raysweep.methods._distillation import PrototypeHead, koleo
from tests.pretraining import NUM_SLICES, VIT, build_method, draw_batch
from tests.unit.methods import reference
from tests.unit.methods.reference import dot, log_softmax, loss_of, mean, move_apart, softmax, units

CLOSE = {"abs": 1e-5, "rel": 0}


def numbers(x: torch.Tensor) -> list:
    return x.detach().double().tolist()


def test_simsiam_stops_the_gradient_at_the_projections():
    method = build_method("simsiam")
    nets, batch = method.nets, draw_batch(method)
    z = [nets["projector"](nets["encoder"](view)) for view in batch.views]
    p = [units(nets["predictor"](value)) for value in z]
    z = [units(value) for value in z]
    expected = -mean(
        [dot(a, b) for one, other in ((p[0], z[1]), (p[1], z[0])) for a, b in zip(one, other, strict=True)]
    )
    assert loss_of(method, batch) == pytest.approx(expected, **CLOSE)


def test_simsiam_learns_through_predictions_alone():
    """The gradient is that of a loss whose targets are fixed numbers."""
    method = build_method("simsiam")
    nets, batch = method.nets, draw_batch(method)
    method.loss(batch)["loss"].backward()
    got = nets["projector"][0].weight.grad.clone()
    method.nets.zero_grad()
    z = [nets["projector"](nets["encoder"](view)) for view in batch.views]
    fixed = [torch.tensor(numbers(value), dtype=torch.float32) for value in z]
    p = [nets["predictor"](value) for value in z]
    cosine = torch.nn.functional.cosine_similarity
    (-(cosine(p[0], fixed[1]).mean() + cosine(p[1], fixed[0]).mean()) / 2).backward()
    torch.testing.assert_close(got, nets["projector"][0].weight.grad, atol=1e-5, rtol=1e-3)


def cross_entropies(teacher, student, method, step, centre) -> float:
    """Equation 3 of DINO's paper: over teacher crops and other student crops, averaged."""
    temperature = method.teacher_temperature(step)
    terms = []
    for index, crop in enumerate(teacher):
        for other, outputs in enumerate(student):
            if other == index:
                continue
            for t, s in zip(crop, outputs, strict=True):
                target = softmax([(a - c) / temperature for a, c in zip(t, centre, strict=True)])
                terms.append(-dot(target, log_softmax([v / method.settings.student_temperature for v in s])))
    return mean(terms)


def in_crops(flat: list) -> list[list]:
    return [flat[i : i + NUM_SLICES] for i in range(0, len(flat), NUM_SLICES)]


def test_dino_distils_a_centred_and_sharpened_teacher_into_all_other_crops():
    method = build_method("dino")
    nets = method.nets
    move_apart(method)
    centre = 0.3 * torch.randn(32, generator=torch.Generator().manual_seed(2))
    nets["centre"].mean = centre.clone()
    batch = draw_batch(method, step=1)
    parts = [nets["encoder"](torch.cat(list(views))) for views in (batch.views[:2], batch.views[2:])]
    student = in_crops(numbers(nets["projector"](torch.cat(parts))))
    outputs = nets["momentum_projector"](nets["momentum_encoder"](torch.cat(list(batch.views[:2]))))
    expected = cross_entropies(in_crops(numbers(outputs)), student, method, 1, centre.double().tolist())
    assert loss_of(method, batch) == pytest.approx(expected, **CLOSE)
    torch.testing.assert_close(nets["centre"].mean, 0.9 * centre + 0.1 * outputs.detach().mean(0), atol=1e-6, rtol=1e-5)


def test_teacher_temperature_rises_over_its_share_of_the_schedule():
    method = build_method("dino", temperature_warmup=0.5)
    assert method.teacher_temperature(0) == 0.04
    assert method.teacher_temperature(5) == pytest.approx(0.055)
    assert method.teacher_temperature(10) == method.teacher_temperature(19) == pytest.approx(0.07)
    assert build_method("dino", temperature_warmup=0).teacher_temperature(0) == 0.07


@pytest.mark.parametrize("name", ["dino", "ibot"])
@pytest.mark.parametrize(("step", "trained"), [(0, False), (10, True)])
def test_prototypes_are_frozen_at_first(name, step, trained):
    method = build_method(name)
    method.loss(draw_batch(method, step=step))["loss"].backward()
    assert (method.nets["projector"].prototypes.grad is not None) == trained


def token_outputs(method, batch, seed):
    """The head's outputs on class tokens and patches of student and teacher, and the hidden patches, step by step."""
    nets = method.nets
    torch.manual_seed(seed)
    large = torch.cat(list(batch.views[:2]))
    hidden = method.draw_masks(len(large), 4, 4)
    patch_head = "patch_projector" if method.separate_heads else "projector"
    seen = nets["momentum_encoder"].tokens(large)
    tokens = nets["encoder"].tokens(large, hidden=hidden, mask_token=nets["mask"]["token"])
    small = nets["encoder"].tokens(torch.cat(list(batch.views[2:])))
    student = nets["projector"](torch.cat((tokens.prefix[:, 0], small.prefix[:, 0])))
    return {
        "hidden": hidden.tolist(),
        "teacher": numbers(nets["momentum_projector"](seen.prefix[:, 0])),
        "teacher_patches": numbers(nets[f"momentum_{patch_head}"](seen.patches)),
        "student": in_crops(numbers(student)),
        "student_patches": numbers(nets[patch_head](tokens.patches)),
        "classes": tokens.prefix[:, 0],
    }


def patch_loss(targets, outputs, hidden, temperature) -> float:
    crops = []
    for target, output, mask in zip(targets, outputs, hidden, strict=True):
        where = [i for i, chosen in enumerate(mask) if chosen]
        if where:
            crops.append(mean([-dot(target[i], log_softmax([v / temperature for v in output[i]])) for i in where]))
    return mean(crops)


def test_ibot_adds_the_hidden_patches_of_each_crop_to_dino():
    method = build_method("ibot", patch_weight=0.7)
    nets, settings = method.nets, method.settings
    move_apart(method)
    generator = torch.Generator().manual_seed(2)
    for name in ("centre", "patch_centre"):
        nets[name].mean = 0.3 * torch.randn(32, generator=generator)
    batch = draw_batch(method, step=1)
    centres = {name: nets[name].mean.double().tolist() for name in ("centre", "patch_centre")}
    out = token_outputs(method, batch, 3)
    expected = cross_entropies(in_crops(out["teacher"]), out["student"], method, 1, centres["centre"])
    temperature = method.teacher_temperature(1)
    targets = [
        [softmax([(a - c) / temperature for a, c in zip(t, centres["patch_centre"], strict=True)]) for t in crop]
        for crop in out["teacher_patches"]
    ]
    assert 0 < sum(map(sum, out["hidden"])) < 2 * NUM_SLICES * 16
    patches = patch_loss(targets, out["student_patches"], out["hidden"], settings.student_temperature)
    assert loss_of(method, batch) == pytest.approx(expected + 0.7 * patches, rel=0, abs=2e-5)


def test_dinov2_balances_its_teachers_and_keeps_class_tokens_apart():
    method = build_method("dinov2", koleo_weight=0.5)
    settings = method.settings
    move_apart(method)
    batch = draw_batch(method, step=1)
    out = token_outputs(method, batch, 3)
    temperature = method.teacher_temperature(1)
    balanced = in_crops(reference.sinkhorn(out["teacher"], temperature, 3))
    terms = [
        -dot(t, log_softmax([v / settings.student_temperature for v in s]))
        for index, crop in enumerate(balanced)
        for other, outputs in enumerate(out["student"])
        if other != index
        for t, s in zip(crop, outputs, strict=True)
    ]
    places = [(b, i) for b, mask in enumerate(out["hidden"]) for i, chosen in enumerate(mask) if chosen]
    chosen = reference.sinkhorn([out["teacher_patches"][b][i] for b, i in places], temperature, 3)
    targets = [[[0.0] * 32 for _ in range(16)] for _ in out["hidden"]]
    for (b, i), target in zip(places, chosen, strict=True):
        targets[b][i] = target
    patches = patch_loss(targets, out["student_patches"], out["hidden"], settings.student_temperature)
    spread = sum(spreading(units(crop)) for crop in out["classes"].chunk(2))
    assert loss_of(method, batch) == pytest.approx(mean(terms) + patches + 0.5 * spread, rel=0, abs=5e-5)


def spreading(vectors: list[list[float]]) -> float:
    return -mean([math.log(min(math.dist(v, w) for w in vectors if w is not v)) for v in vectors])


def test_koleo_is_the_mean_log_distance_to_the_nearest_neighbour():
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    assert float(koleo(x)) == pytest.approx(spreading(units(x)), abs=1e-5)


def test_head_gives_cosines_to_prototypes():
    torch.manual_seed(0)
    head = PrototypeHead(6, 8, 5, 7)
    x = torch.randn(3, 6)
    inner, prototypes = units(head.layers(x)), units(head.prototypes)
    for row, v in zip(numbers(head(x)), inner, strict=True):
        assert row == pytest.approx([dot(v, c) for c in prototypes], abs=1e-6)


@pytest.mark.parametrize("name", ["dino", "ibot", "dinov2", "i-jepa"])
def test_the_teacher_is_handed_on(name):
    method = build_method(name, backbone=VIT)
    assert method.encoder() is method.nets["momentum_encoder"]

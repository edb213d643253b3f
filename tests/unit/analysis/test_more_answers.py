"""Analyses beyond means and pairs, on simulated studies whose truth is known."""

import itertools

import numpy as np
import pyarrow.compute as pc
import pytest
from scipy import stats

from raysweep import analysis
from raysweep.analysis._scores import arm_scores
from raysweep.errors import QueryError
from raysweep.results.read import StudyTables
from tests.simulate import Effects, several_tasks, simulated_study

QUIET = Effects(
    source_gain={"imagenet": 0.3}, subject_sd=0.0, seed_sd=0.0, interaction_sd=0.0, slice_sd=0.0, curve_sd=0.0
)
PAIR = {"random": False, "imagenet": False}


def rows_of(table) -> dict:
    return {(row["arm"], row["annotations"]): row for row in table.to_pylist()}


def test_wilcoxon_and_legacy_tests_are_those_of_scipy_on_the_same_scores():
    tables = simulated_study(sources=PAIR, annotations=(8,), seeds=range(4))
    first, second = (entry.scores for entry in arm_scores(tables))
    (wilcoxon,) = analysis.comparison(tables, test="wilcoxon").to_pylist()
    assert wilcoxon["p"] == pytest.approx(stats.wilcoxon(first.mean(axis=0), second.mean(axis=0)).pvalue)
    (legacy,) = analysis.comparison(tables, test="legacy").to_pylist()
    assert legacy["p"] == pytest.approx(stats.ttest_ind(first.mean(axis=1), second.mean(axis=1)).pvalue)
    assert legacy["decided"] == (legacy["p"] < 0.05)
    assert (wilcoxon["test"], legacy["test"]) == ("wilcoxon", "legacy")
    with pytest.raises(QueryError, match=r"no test 'wilcox'.*Did you mean 'wilcoxon'"):
        analysis.comparison(tables, test="wilcox")


def test_speed_up_is_the_ratio_of_epochs_where_there_is_no_noise():
    tables = simulated_study(annotations=(8,), seeds=(0, 1), epochs=40, effects=QUIET)
    epochs = {
        (row["arm"], row["seed"]): row["epoch"]
        for row in analysis.convergence(tables).to_pylist()
        if (row["target"], row["fraction"]) == ("own", 0.95)
    }
    for row in analysis.speed_up(tables, reference="imagenet", target="own").to_pylist():
        ratio = epochs["imagenet", 0] / epochs[row["arm"], 0]
        assert row["speed_up"] == row["low"] == row["high"] == pytest.approx(ratio)
        assert row["bound"] == "estimate"
    pretrained = rows_of(analysis.speed_up(tables, reference="imagenet", target="own"))
    assert pretrained["imagenet → acdc · byol · 25 ep", 8]["speed_up"] > 1.5


def test_a_speed_up_over_a_reference_that_never_gets_there_is_a_bound():
    truth = Effects(source_gain={"imagenet": 0.8})
    tables = simulated_study(sources=PAIR, annotations=(8,), epochs=30, effects=truth)
    (row,) = analysis.speed_up(tables, reference="random").to_pylist()
    assert (row["bound"], row["num_reference_censored"], row["num_censored"]) == ("at least", 3, 0)
    (other,) = analysis.speed_up(tables, reference="imagenet").to_pylist()
    assert (other["arm"], other["bound"]) == ("random", "at most")
    assert other["speed_up"] == pytest.approx(1 / row["speed_up"])


def test_spread_over_seeds_is_the_standard_deviation_by_epoch_and_its_average():
    tables = simulated_study(sources=PAIR, annotations=(8,), seeds=(0, 1, 2), epochs=5)
    values: dict = {}
    for row in tables.curves().to_pylist():
        if row["split"] == "val":
            values.setdefault((row["source"], row["epoch"]), []).append(row["value"])
    for row in analysis.stability(tables).to_pylist():
        assert row["sd"] == pytest.approx(np.std(values[row["source"], row["epoch"]], ddof=1))
    for row in analysis.stability_summary(tables).to_pylist():
        sds = [np.std(values[row["source"], epoch], ddof=1) for epoch in range(1, 6)]
        assert row["mean_sd"] == pytest.approx((sds[0] / 2 + sum(sds[1:4]) + sds[4] / 2) / 4)
        assert row["final_sd"] == pytest.approx(sds[-1])
    (alone,) = analysis.stability_summary(
        simulated_study(sources={"random": False}, annotations=(8,), seeds=(0,))
    ).to_pylist()
    assert (alone["mean_sd"], alone["num_seeds"]) == (None, 1)


def test_area_under_the_curve_is_the_mean_over_log_counts():
    counts = (1, 10, 1000)
    tables = simulated_study(sources={"random": False}, annotations=counts, seeds=(0, 1), effects=QUIET)
    means = [rows_of(analysis.data_efficiency(tables))["random", count]["mean"] for count in counts]
    (row,) = analysis.area_under_curve(tables).to_pylist()
    assert row["area"] == pytest.approx(np.trapezoid(means, np.log(counts)) / np.log(1000))
    missing = simulated_study(sources=PAIR, pending=lambda c: c["source"] == "random" and c["annotations"] == 30)
    by_arm = {row["arm"]: row for row in analysis.area_under_curve(missing).to_pylist()}
    assert (by_arm["random"]["area"], by_arm["random"]["num_missing"]) == (None, 1)
    assert by_arm["imagenet"]["low"] < by_arm["imagenet"]["area"] < by_arm["imagenet"]["high"]


def test_the_power_law_behind_a_study_is_found_again():
    counts = (1, 3, 7, 15, 30, 75, 150, 300)
    truth = Effects(source_gain={"imagenet": 0.3}, subject_sd=0.0, seed_sd=0.002, interaction_sd=0.002, slice_sd=0.0)
    tables = simulated_study(sources=PAIR, annotations=counts, seeds=range(5), epochs=1, effects=truth)
    for row in analysis.power_law(tables).to_pylist():
        assert row["exponent_low"] <= truth.exponent <= row["exponent_high"]
        assert row["floor"] == pytest.approx(1 - truth.ceiling, abs=0.03)
        knee = (row["scale"] * (1 - 2 ** -row["exponent"]) / 0.01) ** (1 / row["exponent"])
        assert row["knee_annotations"] == pytest.approx(knee)
        assert row["rms_residual"] < 0.01
    few = analysis.power_law(simulated_study(sources=PAIR)).to_pylist()
    assert [(row["num_counts"], row["exponent"]) for row in few] == [(3, None)] * 2


def test_equal_arms_are_equivalent_and_a_worse_one_is_not():
    truth = Effects(source_gain={"imagenet": 0.3, "twin": 0.3}, seed_sd=0.001, interaction_sd=0.002, slice_sd=0.005)
    sources = {"imagenet": False, "twin": False, "random": False}
    tables = simulated_study(sources=sources, annotations=(8,), seeds=range(5), effects=truth)
    rows = {row["arm"]: row for row in analysis.equivalence(tables, "imagenet").to_pylist()}
    assert (rows["twin"]["verdict"], rows["random"]["verdict"]) == ("equivalent", "open")
    assert rows["twin"]["low"] > -0.01
    assert rows["twin"]["high"] < 0.01
    better = {row["arm"]: row for row in analysis.equivalence(tables, "random").to_pylist()}
    assert better["imagenet"]["verdict"] == "not worse"
    best = analysis.equivalence(tables).to_pylist()
    assert {row["reference"] for row in best} <= {"imagenet", "twin"}
    with pytest.raises(QueryError, match="above 0"):
        analysis.equivalence(tables, margin=0)


def test_more_seeds_decide_what_seeds_blur_and_not_what_subjects_do():
    def needed(**spread):
        # Few annotations and a small gain: a difference of about one point.
        truth = Effects(source_gain={"imagenet": 0.05}, subject_sd=0.0, slice_sd=0.002, **spread)
        tables = simulated_study(
            3, sources=PAIR, annotations=(8,), seeds=(0, 1, 2), num_subjects=10, epochs=1, effects=truth
        )
        return analysis.seeds_needed(tables).to_pylist()

    (by_seeds,) = needed(seed_sd=0.02, interaction_sd=0.0)
    assert by_seeds["seeds_needed"] is None or by_seeds["seeds_needed"] > 3
    assert by_seeds["subjects_needed"] is None
    assert by_seeds["seed_sd"] > by_seeds["subject_sd"]
    assert needed(seed_sd=0.0002, interaction_sd=0.0002) == []


def test_no_number_of_seeds_helps_where_the_permutation_test_has_too_few_subjects():
    truth = Effects(source_gain={"imagenet": 0.3}, seed_sd=0.002, interaction_sd=0.004)
    tables = simulated_study(sources=PAIR, annotations=(8,), seeds=range(3), num_subjects=5, effects=truth)
    (row,) = analysis.seeds_needed(tables).to_pylist()
    assert row["seeds_needed"] is None
    assert row["subjects_needed"] == 6  # 2 / 2 ** 5 is above 0.05, 2 / 2 ** 6 below
    assert analysis.comparison(tables).to_pylist()[0]["high"] < 0


def test_seeds_needed_reach_the_power_they_promise():
    from raysweep.analysis.seeds_needed import Components, _fewest

    found = Components(seed=0.02**2, subject=0.0, residual=0.01**2)
    num = _fewest([(n, 200) for n in range(2, 1000)], found, 0.02, 0.05, 0)
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        means = 0.02 + rng.normal(0, 0.02, num) + rng.normal(0, 0.01, (num, 200)).mean(axis=1)
        hits += stats.ttest_1samp(means, 0).pvalue < 0.05
    assert 0.74 < hits / 1000 < 0.9


def test_ranking_across_tasks_finds_the_order_and_what_cannot_be_told_apart():
    sources = {"random": False, "imagenet": False, "twin": False, "best": False}
    gains = {"imagenet": 0.3, "twin": 0.3, "best": 0.6}
    tables = several_tasks(
        7, sources=sources, annotations=(8,), seeds=(0, 1, 2), epochs=1,
        effects=Effects(source_gain=gains, seed_sd=0.001, interaction_sd=0.001),
    )  # fmt: skip
    rows = {row["arm"]: row for row in analysis.ranking(tables).to_pylist()}
    assert rows["best"]["mean_rank"] == 1
    assert rows["random"]["mean_rank"] == 4
    assert rows["imagenet"]["mean_rank"] + rows["twin"]["mean_rank"] == pytest.approx(5)
    assert all(row["num_blocks"] == 7 and row["p_iman_davenport"] < 0.001 for row in rows.values())
    assert set(rows["imagenet"]["groups"]) & set(rows["twin"]["groups"])
    assert not set(rows["best"]["groups"]) & set(rows["random"]["groups"])
    holm = {row["arm"]: row for row in analysis.ranking(tables, rule="wilcoxon-holm").to_pylist()}
    assert {arm: row["mean_rank"] for arm, row in holm.items()} == {arm: row["mean_rank"] for arm, row in rows.items()}
    assert holm["best"]["critical_difference"] is None


def test_ranking_across_patients_ranks_their_means_and_leaves_out_who_is_missing():
    tables = simulated_study(sources=PAIR | {"late": False}, annotations=(8,), pending=lambda c: c["source"] == "late")
    rows = {row["arm"]: row for row in analysis.ranking(tables, blocks="subject").to_pylist()}
    first, second = (entry.scores.mean(axis=0) for entry in arm_scores(tables)[:2])
    assert rows["random"]["mean_rank"] == pytest.approx(1 + np.mean(first < second))
    assert (rows["late"]["mean_rank"], rows["late"]["groups"]) == (None, None)
    assert rows["random"]["num_blocks"] == 10


def test_interquartile_means_pool_tasks_and_seeds():
    tables = several_tasks(3, sources=PAIR, annotations=(8,), seeds=range(4), epochs=1)
    for row in analysis.interquartile_means(tables).to_pylist():
        runs = np.concatenate([e.seed_means for e in arm_scores(tables) if e.arm.label == row["arm"]])
        assert row["interquartile_mean"] == pytest.approx(stats.trim_mean(runs, 0.25))
        assert (row["num_tasks"], row["num_runs"]) == (3, 12)
        assert row["low"] < row["interquartile_mean"] < row["high"]


def test_mixed_model_of_a_balanced_study_is_the_analysis_of_variance():
    tables = simulated_study(sources=PAIR, annotations=(8,), seeds=range(4), num_subjects=8)
    first, second = (entry.scores for entry in arm_scores(tables))
    (row,) = analysis.mixed_model(tables).to_pylist()
    assert row["difference"] == pytest.approx((second - first).mean(), abs=1e-6)
    scores = np.stack([first, second])
    fitted = (
        scores.mean(axis=(1, 2), keepdims=True) + scores.mean(axis=(0, 2), keepdims=True)
        + scores.mean(axis=(0, 1), keepdims=True) - 2 * scores.mean()
    )  # fmt: skip
    residual = ((scores - fitted) ** 2).sum() / (scores.size - 1 - 1 - 3 - 7)
    assert row["residual_sd"] == pytest.approx(residual**0.5, rel=0.02)
    half = 1.96 * (2 * residual / first.size) ** 0.5
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.02)
    by_subject = scores.mean(axis=(0, 1)).var(ddof=1)
    assert row["subject_sd"] == pytest.approx((by_subject - residual / 8) ** 0.5, rel=0.05)


def test_the_pareto_front_is_what_nobody_beats_at_its_price():
    tables = simulated_study(annotations=(8, 30))
    rows = analysis.efficiency(tables).to_pylist()
    for row in rows:
        same = [other for other in rows if other["annotations"] == row["annotations"]]
        beaten = any(
            (other["hours"] <= row["hours"] and other["mean"] > row["mean"])
            or (other["hours"] < row["hours"] and other["mean"] >= row["mean"])
            for other in same
        )  # fmt: skip
        assert row["on_front"] == (not beaten)
    by_arm = {row["arm"]: row for row in rows if row["annotations"] == 8}
    assert by_arm["random"]["hours"] == pytest.approx(30 / 3600)
    assert by_arm["imagenet → acdc · byol · 6 ep"]["hours"] == pytest.approx((30 + 60) / 3600)
    assert by_arm["imagenet → acdc · byol · 6 ep"]["pretrain_hours"] == pytest.approx(60 / 3600)
    assert all(
        row["device"] == "cpu" and row["score_per_hour"] == pytest.approx(row["mean"] / row["hours"]) for row in rows
    )


def test_skipped_cells_are_counted_apart_from_pending_ones():
    tables = simulated_study(
        sources={"random": False, "acdc": True}, annotations=(8,), pretrain_epochs=(5,),
        pending=lambda cell: cell["seed"] == 0, failed_pretraining=lambda cell: cell["seed"] == 1,
    )  # fmt: skip
    rows = rows_of(analysis.data_efficiency(tables))
    row = rows["acdc · byol · 5 ep", 8]
    assert (row["num_pending"], row["num_skipped"], row["num_failed"], row["num_seeds"]) == (1, 1, 0, 1)
    assert rows["random", 8]["num_skipped"] == 0


def test_holm_of_the_comparison_is_over_the_pairs_of_a_count():
    tables = simulated_study(annotations=(8, 30), pretrain_epochs=(1, 6))
    every = analysis.comparison(tables, test="wilcoxon")
    for count in (8, 30):
        own = every.filter(pc.equal(every["annotations"], count)).to_pylist()
        ordered = sorted(row["p"] for row in own)
        steps = [p * (len(ordered) - i) for i, p in enumerate(ordered)]
        expected = list(itertools.accumulate((min(1, p) for p in steps), max))
        assert sorted(row["p_holm"] for row in own) == pytest.approx(expected)


def test_answers_are_the_same_for_copies_of_the_tables():
    tables = simulated_study(annotations=(8, 30), seeds=(0, 1))
    copy = StudyTables(tables.study, tables.cells, tables.stages, tables.epochs, tables.cases)
    for name in ("ranking", "equivalence", "interquartile_means", "seeds_needed", "area_under_curve"):
        assert getattr(analysis, name)(tables) == getattr(analysis, name)(copy)

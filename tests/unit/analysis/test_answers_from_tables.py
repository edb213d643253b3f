import math

import numpy as np
import pytest

from raysweep import analysis
from raysweep.analysis._scores import arm_scores
from raysweep.errors import QueryError
from raysweep.results.read import StudyTables, study_tables
from raysweep.results.write import to_table
from raysweep.store import Store
from tests.simulate import Effects, simulated_study, write_to

FUNCTIONS = [getattr(analysis, name) for name in analysis.__all__ if name[0].islower()]
NO_NOISE = Effects(
    source_gain={"imagenet": 0.3},
    subject_sd=0.0,
    seed_sd=0.0,
    interaction_sd=0.0,
    slice_sd=0.0,
    pretrain_halfway=0.05,
)


def test_mean_scores_are_the_truth_where_there_is_no_noise():
    for row in analysis.data_efficiency(simulated_study(effects=NO_NOISE)).to_pylist():
        assert row["mean"] == pytest.approx(NO_NOISE.score(row), abs=1e-3)
        assert row["high"] - row["low"] < 1e-9


def test_intervals_of_simulated_studies_cover_the_truth():
    covered = []
    for seed in range(60):
        truth = Effects(source_gain={"imagenet": 0.3}, seed_sd=0.01)
        tables = simulated_study(
            seed, {"random": False, "imagenet": False}, annotations=(30,), epochs=1, effects=truth,
            slices_per_subject=2,
        )  # fmt: skip
        covered += [
            row["low"] <= truth.score(row) <= row["high"]
            for row in analysis.data_efficiency(tables).to_pylist()
            if row["arm"] == "random"
        ]
    assert sum(covered) >= 52  # 60 draws at 95 %: below this once in 100


def test_comparison_is_paired_and_signed_by_hand():
    tables = simulated_study(annotations=(8,), seeds=(0, 1), num_subjects=6)
    entries = {entry.arm.label: entry for entry in arm_scores(tables)}
    for row in analysis.comparison(tables).to_pylist():
        differences = entries[row["arm"]].scores - entries[row["other"]].scores
        assert row["difference"] == pytest.approx(differences.mean())
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["p_holm"] >= row["p"]


def test_a_large_difference_is_decided_and_none_is_open():
    sources = {"random": False, "imagenet": False, "same": False}
    truth = Effects(source_gain={"imagenet": 0.6}, seed_sd=0.002, interaction_sd=0.004)
    rows = analysis.comparison(
        simulated_study(sources=sources, annotations=(8,), seeds=range(5), num_subjects=12, effects=truth)
    ).to_pylist()
    decided = {(row["arm"], row["other"]): row["decided"] for row in rows}
    assert decided == {("random", "imagenet"): True, ("random", "same"): False, ("imagenet", "same"): True}


def test_a_reference_limits_the_pairs_and_the_correction():
    tables = simulated_study(annotations=(8, 30))
    rows = analysis.comparison(tables, reference="imagenet").to_pylist()
    assert {row["other"] for row in rows} == {"imagenet"}
    assert len(rows) == 2 * 4
    every = analysis.comparison(tables).to_pylist()
    key = ("random", 8)
    few = next(r["p_holm"] for r in rows if (r["arm"], r["annotations"]) == key)
    many = next(r["p_holm"] for r in every if (r["arm"], r["annotations"], r["other"]) == (*key, "imagenet"))
    assert few < many


def test_named_arms_limit_the_pairs():
    rows = analysis.comparison(simulated_study(annotations=(8,)), arms=["random", "imagenet"]).to_pylist()
    assert [(row["arm"], row["other"]) for row in rows] == [("random", "imagenet")]


def test_an_unknown_arm_is_refused_with_the_nearest_name():
    with pytest.raises(QueryError, match=r"'imagnet'.*Did you mean 'imagenet'"):
        analysis.comparison(simulated_study(annotations=(8,)), reference="imagnet")


def test_arms_without_a_common_result_are_null_and_not_in_the_correction():
    tables = simulated_study(annotations=(8,), pending=lambda cell: cell["source"] == "random")
    rows = analysis.comparison(tables).to_pylist()
    without = [row for row in rows if row["arm"] == "random"]
    assert all(row["difference"] is None and row["decided"] is None for row in without)
    smallest = min((row for row in rows if row["p"] is not None), key=lambda row: row["p"])
    assert smallest["p_holm"] == pytest.approx(min(1, 6 * smallest["p"]))


def test_fewest_annotations_follow_the_power_law():
    counts = (2, 8, 30, 120, 480)
    tables = simulated_study(sources={"random": False}, annotations=counts, seeds=(0, 1), effects=NO_NOISE)
    cell = {"source": "random", "method": None, "pretrain_epochs": None}
    scores = {count: NO_NOISE.score({**cell, "annotations": count}) for count in counts}
    expected = min(count for count in counts if scores[count] >= 0.95 * scores[480])
    (row,) = analysis.annotations_needed(tables).to_pylist()
    assert row["fewest"] == row["fewest_sure"] == expected
    assert row["full_annotations"] == 480


def test_fewest_annotations_are_unknown_until_full_data_have_run():
    tables = simulated_study(pending=lambda cell: cell["annotations"] == 120)
    assert all(row["fewest"] is None for row in analysis.annotations_needed(tables).to_pylist())


def test_short_pretraining_is_within_noise_only_where_it_is_as_good():
    saturating = Effects(method_gain={"byol": 0.5}, pretrain_halfway=3.0, seed_sd=0.001, interaction_sd=0.002)
    tables = simulated_study(
        sources={"acdc": True},
        pretrain_epochs=(1, 50, 400),
        annotations=(8,),
        seeds=range(5),
        effects=saturating,
    )
    rows = {row["pretrain_epochs"]: row for row in analysis.pretraining_length(tables).to_pylist()}
    assert rows[1]["within_noise"] is False
    assert rows[1]["behind_low"] > 0
    assert sum(row["best"] for row in rows.values()) == 1
    fewest = [epochs for epochs, row in rows.items() if row["fewest_within_noise"]]
    assert fewest == [min(epochs for epochs, row in rows.items() if row["within_noise"])]


def test_convergence_is_the_first_epoch_at_the_threshold():
    tables = simulated_study(annotations=(8, 30), seeds=(0, 1), effects=NO_NOISE)
    curves: dict[str, dict[int, float]] = {}
    for row in tables.curves().to_pylist():
        if row["split"] == "val":
            curves.setdefault(row["cell"], {})[row["epoch"]] = row["value"]
    for row in analysis.convergence(tables).to_pylist():
        curve = curves[row["cell"]]
        if row["target"] == "own":
            assert row["threshold"] == pytest.approx(row["fraction"] * curve[30])
        reached = [epoch for epoch in sorted(curve) if curve[epoch] >= row["threshold"]]
        assert row["epoch"] == (reached[0] if reached else None)
        assert row["censored"] == (not reached)
        assert row["elapsed_s"] == (float(reached[0]) if reached else None)


def test_the_common_target_is_the_best_mean_of_finals():
    tables = simulated_study(annotations=(8,), seeds=(0, 1, 2))
    rows = [r for r in analysis.convergence(tables).to_pylist() if (r["target"], r["fraction"]) == ("best", 0.95)]
    finals: dict[str, list[float]] = {}
    for row in rows:
        finals.setdefault(row["arm"], []).append(row["final"])
    best = max(np.mean(values) for values in finals.values())
    assert [row["threshold"] for row in rows] == pytest.approx([0.95 * best] * len(rows))


def test_a_weak_source_is_censored_and_its_median_is_unknown():
    truth = Effects(source_gain={"imagenet": 0.8})
    tables = simulated_study(sources={"random": False, "imagenet": False}, annotations=(8,), effects=truth)
    rows = {
        (row["arm"], row["target"], row["fraction"]): row for row in analysis.convergence_summary(tables).to_pylist()
    }
    weak = rows["random", "best", 0.95]
    assert (weak["num_censored"], weak["median_epoch"]) == (3, None)
    assert rows["imagenet", "best", 0.95]["median_epoch"] is not None


def test_cost_counts_a_shared_run_once_and_naive_up_to_the_epoch_used():
    tables = simulated_study(
        sources={"random": False, "acdc": True}, pretrain_epochs=(5, 20), annotations=(8, 30), seeds=(0, 1, 2)
    )
    rows = {row["kind"]: row for row in analysis.cost(tables).to_pylist()}
    assert rows["pretrain"]["wall_s"] == 3 * 200
    assert rows["pretrain"]["naive_wall_s"] == pytest.approx(3 * 2 * (50 + 200))
    assert rows["finetune"]["wall_s"] == rows["finetune"]["naive_wall_s"] == (6 + 12) * 30
    assert rows["pretrain"]["naive_num_stages"] == 12
    for name in ("num_stages", "wall_s", "naive_wall_s"):
        assert rows["total"][name] == rows["pretrain"][name] + rows["finetune"][name]


def test_cost_compares_finished_cells_only():
    tables = simulated_study(
        sources={"acdc": True}, pretrain_epochs=(5,), seeds=(0,), annotations=(8, 30),
        failed=lambda cell: cell["annotations"] == 30,
    )  # fmt: skip
    finetune = analysis.cost(tables).to_pylist()[1]
    assert (finetune["wall_s"], finetune["shared_wall_s"], finetune["naive_wall_s"]) == (60, 30, 30)
    assert finetune["num_failed"] == 1


def test_settings_are_never_mixed():
    tables = simulated_study(annotations=(8,), seeds=(0, 1))
    cells = tables.cells.to_pylist()
    for cell in cells:
        cell["tuning"] = "frozen" if cell["seed"] == 1 else "full"
    split = StudyTables(tables.study, to_table("cells", cells), tables.stages, tables.epochs, tables.cases)
    rows = analysis.data_efficiency(split).to_pylist()
    assert len(rows) == 2 * 5
    assert all(row["num_seeds"] == 1 for row in rows)
    assert all(row["num_seeds"] == 1 for row in analysis.comparison(split).to_pylist())


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_a_study_where_nothing_has_run_gives_a_table_of_the_same_schema(function):
    full = function(simulated_study(annotations=(8, 30), seeds=(0, 1)))
    empty = function(simulated_study(annotations=(8, 30), seeds=(0, 1), pending=lambda cell: True))
    assert empty.schema == full.schema


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_answers_do_not_depend_on_the_order_of_rows(function):
    tables = simulated_study(annotations=(8,), seeds=(0, 1))
    order = np.random.default_rng(0).permutation(tables.cases.num_rows)
    shuffled = StudyTables(
        tables.study, tables.cells, tables.stages.take(list(range(tables.stages.num_rows))[::-1]),
        tables.epochs, tables.cases.take(order),
    )  # fmt: skip
    for first, second in zip(function(tables).to_pylist(), function(shuffled).to_pylist(), strict=True):
        for name, value in first.items():
            if isinstance(value, float):
                assert math.isclose(value, second[name], abs_tol=1e-9)
            else:
                assert value == second[name]


def test_a_study_written_to_a_store_gives_the_same_answers(tmp_path):
    tables = simulated_study(
        annotations=(8,), seeds=(0, 1), epochs=3, num_subjects=4, pending=lambda c: c["source"] == "random"
    )
    store = Store(tmp_path).prepare()
    write_to(store, tables)
    read = study_tables(store, "simulated")
    assert analysis.data_efficiency(read) == analysis.data_efficiency(tables)
    assert analysis.comparison(read) == analysis.comparison(tables)
    assert analysis.cost(read) == analysis.cost(tables)

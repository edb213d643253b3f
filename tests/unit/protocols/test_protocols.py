"""Protocols of published studies: what each switch sets, that it is identity, and what neither protocol repeats."""

from __future__ import annotations

import pytest

from raysweep import protocols
from raysweep.errors import StudyError
from raysweep.planning import build_plan
from raysweep.protocols import SameAs, paper_of
from raysweep.report.facts import study_facts
from raysweep.study.load import load_study, validate_study
from raysweep.study.protocol import protocol_line, protocol_lines, switch_states
from tests.studies import FAKE_FACTS, study_document, with_changes

PAPERS = protocols.names()
SWITCHES = [(paper, switch.name) for paper in PAPERS for switch in paper_of(paper).switches]
# A budget of 8 of 32 slices in batches of 4, which the published repetition changes.
BASE = {"tasks.heart.training.precision": ..., "pretraining.precision": ..., "grid.source": ["cardiac"],
        "grid.annotations": ["30%"]}  # fmt: skip


def switch_of(paper, name):
    return next(switch for switch in paper_of(paper).switches if switch.name == name)


def study(changes=None):
    return validate_study(with_changes(study_document(), {**BASE, **(changes or {})}))


def stages(of):
    return set(build_plan(of, FAKE_FACTS).stages)


def only(paper, name):
    """The study with one switch on and the protocol otherwise corrected."""
    plain = study({"protocol": "paper-exact", "paper": paper})
    changes = {}
    for key, value in switch_of(paper, name).settings.items():
        place = key.replace("tasks.*", "tasks.heart")
        if isinstance(value, SameAs):
            settings = plain.task_settings("heart")
            for part in value.key.split("."):
                settings = getattr(settings, part)
            value = settings if isinstance(settings, int) else settings.model_dump(mode="json")
        changes[place] = value
    return study({**changes, "paper": paper})


def test_both_papers_have_protocols():
    assert PAPERS == ["kalapos2022", "taher2021"]


def test_protocols_are_listed():
    from typer.testing import CliRunner

    from raysweep.cli import app

    printed = CliRunner().invoke(app, ["list", "protocols"]).output
    assert all(paper in printed for paper in PAPERS)


@pytest.mark.parametrize("paper", PAPERS)
def test_paper_exact_sets_every_switch_and_says_so(paper):
    exact = study({"protocol": "paper-exact", "paper": paper})
    states = switch_states(exact)
    assert [state.switch.name for state in states] == [switch.name for switch in paper_of(paper).switches]
    assert all(state.as_published for state in states)
    assert protocol_line(exact) == f"paper-exact: as {paper_of(paper).title} ran it, defects included"
    lines = "\n".join(protocol_lines(exact))
    for switch in paper_of(paper).switches:
        assert f"{switch.name}, as published: {switch.published}" in lines


@pytest.mark.parametrize("paper", PAPERS)
def test_the_corrected_protocol_has_none_of_them(paper):
    corrected = study({"paper": paper})
    assert not any(state.as_published for state in switch_states(corrected))
    lines = "\n".join(protocol_lines(corrected))
    for switch in paper_of(paper).switches:
        assert f"{switch.name}, corrected: {switch.corrected}" in lines
    assert stages(corrected) == stages(study()), "naming a paper changes no stage"


@pytest.mark.parametrize(("paper", "name"), SWITCHES)
def test_each_switch_alone_is_identity_where_it_changes_results(paper, name):
    one = only(paper, name)
    (state,) = [state for state in switch_states(one) if state.as_published]
    assert state.switch.name == name
    shared = stages(one) & stages(study())
    if name == "independent-t-tests":  # of the report alone
        assert shared == stages(study())
        return
    keys = switch_of(paper, name).settings
    finetunes = {s.id for s in build_plan(one, FAKE_FACTS).stages.values() if s.kind == "finetune"}
    assert not shared & finetunes, "no fine-tuning of it is taken for a corrected one"
    if any(not key.startswith("tasks.") for key in keys):
        pretrains = {s.id for s in build_plan(one, FAKE_FACTS).stages.values() if s.kind == "pretrain"}
        assert not shared & pretrains


@pytest.mark.parametrize("paper", PAPERS)
def test_no_stage_of_paper_exact_is_one_of_the_corrected_study(paper):
    assert not stages(study({"protocol": "paper-exact", "paper": paper})) & stages(study())


def test_a_study_that_says_otherwise_keeps_its_word_and_the_departure_is_named():
    exact = study({"protocol": "paper-exact", "paper": "kalapos2022", "tasks.heart.drawing": "anew"})
    assert exact.task_settings("heart").drawing == "anew"
    assert protocol_line(exact).endswith("defects included, except slice-draws")
    assert "  slice-draws, not as published (tasks.heart.drawing set otherwise)" in protocol_lines(exact)


def test_protocol_stands_in_the_plan_and_in_the_report(tiny_store):
    from rich.console import Console

    from raysweep.planning.summary import plan_json, render_plan
    from tests.simulate import simulated_study

    exact = study({"protocol": "paper-exact", "paper": "taher2021"})
    plan = build_plan(exact, FAKE_FACTS)
    assert plan_json(plan, {})["protocol"]["as_published"]["no-seeds"]
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(render_plan(plan, {}))
    assert "no-seeds, as published: no run is seeded" in console.export_text()
    facts = study_facts(exact, simulated_study(annotations=(8,), epochs=1, num_subjects=2))
    assert facts.protocol.startswith("paper-exact: as Hosseinzadeh Taher")
    assert "no run is seeded" in dict(facts.provenance)["against the paper"]
    assert study_facts(study(), simulated_study(annotations=(8,), epochs=1, num_subjects=2)).protocol == (
        "corrected: nested annotation subsets shared by all sources, whole test slices at native resolution, scores "
        "without background"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocol": "paper-exact"}, "paper: is required where the protocol is paper-exact"),
        ({"paper": "kalapos2023"}, "unknown name 'kalapos2023'. Did you mean 'kalapos2022'"),
        ({"protocol": "exact", "paper": "taher2021"}, "protocol: "),
        ({"tasks.heart.drawing": "kalapos2022", "tasks.heart.annotate_by": "subject"}, "draws slices; subjects are"),
    ],
)
def test_what_is_no_protocol_is_refused(changes, said):
    with pytest.raises(StudyError) as caught:
        study(changes)
    assert said in str(caught.value)


@pytest.mark.parametrize("protocol", [{}, {"protocol": "paper-exact", "paper": "kalapos2022"}])
def test_defects_that_only_end_or_spoil_runs_are_absent_under_either_protocol(tmp_path, protocol):
    """Those of Kalapos & Gyires-Toth 2022: each entry of ``absent`` has its line here."""
    assert set(paper_of("kalapos2022").absent) == {"unknown-weights", "missing-script", "past-the-grid"}
    with pytest.raises(StudyError, match="no weights are named 'byol-imagnet'"):
        study({**protocol, "sources.random": {"weights": "byol-imagnet"}})
    with pytest.raises(StudyError, match=r"nowhere\.yaml cannot be read"):
        load_study(tmp_path / "nowhere.yaml")
    grid = study({**protocol, "grid.source": ["random"], "grid.method": [], "grid.pretrain_epochs": [],
                  "grid.annotations": [1, 3, 7], "grid.seed": [0, 13]})  # fmt: skip
    cells = build_plan(grid, FAKE_FACTS).cells
    assert {(cell.annotations, cell.seed) for cell in cells} == {(n, s) for n in (1, 3, 7) for s in (0, 13)}
    assert len(cells) == 6

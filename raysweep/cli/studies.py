"""Commands about studies: plan, run, status, report."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from raysweep.cli._app import EXIT_FAILED, EXIT_INTERRUPTED, SetOption, StoreOption, StudyFile, app

if TYPE_CHECKING:
    from raysweep.sweep import StudyRun


class LogChoice(StrEnum):
    """How log lines are written."""

    text = "text"
    json = "json"


class ExecutorChoice(StrEnum):
    """Where stages run."""

    tune = "tune"
    inline = "inline"


@app.command(epilog="Example: raysweep plan search_spaces/quickstart.yaml --set grid.seed=[0]")
def plan(
    study: StudyFile,
    store: StoreOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary, stages and cells as JSON.")] = False,
) -> None:
    """Show the cells and stages of a study, what is done, what it takes, and what sharing saves. Nothing is trained."""
    from raysweep.planning.cost import estimate
    from raysweep.planning.summary import plan_json, render_plan
    from raysweep.results.complete import complete_ledger
    from raysweep.results.rates import measured_rates
    from raysweep.sweep import open_store
    from raysweep.sweep import plan as make_plan
    from raysweep.terminal import show

    opened = open_store(store)
    planned = make_plan(study, store=opened, set=set_ or [])
    ledger = complete_ledger(opened)
    estimated = estimate(planned, ledger, measured_rates(opened, planned.study.resources))
    if as_json:
        typer.echo(json.dumps(plan_json(planned, ledger, estimated), indent=2))
    else:
        show(render_plan(planned, ledger, estimated))


def _tell_outcome(launched: StudyRun) -> None:
    """Print what ran, what failed or was skipped and why, and profiles."""
    from raysweep.logs import tell
    from raysweep.terminal import show

    outcome, name = launched.outcome, launched.plan.study.study
    if outcome.done == 0 and outcome.is_complete:
        show(f"nothing to do: all {len(launched.plan.stages)} stages of {name} are done")
    else:
        show(f"{outcome.done} stages run in {outcome.wall_s:.0f} s")
    for kind, reasons in (("failed", outcome.failed), ("skipped", outcome.skipped)):
        for stage, reason in reasons.items():
            tell(f"{kind} {stage}: {reason}")
    for profiled in (stage for stage in launched.plan.stages.values() if stage.profile):
        if profiled.name not in outcome.failed:
            from raysweep.report.profile import render_profile

            show(render_profile(launched.store, profiled.id))


@app.command(epilog="Example: raysweep run search_spaces/quickstart.yaml --store results --set grid.seed=[0,1,2]")
def run(
    study: StudyFile,
    store: StoreOption = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="Ray cluster to run on. Default: Ray starts on this machine.")
    ] = None,
    executor: Annotated[
        ExecutorChoice, typer.Option(help="tune: Ray Tune; inline: this process, without Ray.")
    ] = ExecutorChoice.tune,
    set_: SetOption = None,
    retry_failed: Annotated[bool, typer.Option(help="Try stages again that failed in an earlier launch.")] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="TRACKER", help="Also log metrics to tensorboard, mlflow or wandb; repeatable."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            help="Measure one stage, named as `raysweep plan --json` names stages and cells: leaves a trace of the "
            "torch profiler in the store and prints where its time went.",
        ),
    ] = None,
    report_: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the report when stages have run.")
    ] = True,
    log_format: Annotated[
        LogChoice | None,
        typer.Option(help="json: lines of JSON for collectors of logs, here and on workers. Default: $RAYSWEEP_LOG."),
    ] = None,
) -> None:
    """Run what is left of a study, then write its report. Launch again after any interruption: it continues."""
    from raysweep.logs import tell, use
    from raysweep.sweep import report as make_report
    from raysweep.sweep import run as run_study
    from raysweep.terminal import show

    if log_format is not None:
        use(log_format.value)
    try:
        launched = run_study(
            study,
            store=store,
            executor=executor.value,
            address=address,
            retry_failed=retry_failed,
            track=track or [],
            profile=profile,
            set=set_ or [],
        )
    except KeyboardInterrupt:
        tell("interrupted; the same command continues where it stopped")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _tell_outcome(launched)
    if report_:
        made = make_report(launched.plan.study, store=launched.store)
        show(made.summary)
        show(f"report: {made.page}")
    if not launched.outcome.is_complete:
        tell(
            "some stages failed; the others are done. `raysweep logs` shows what one said, and "
            "`raysweep run --retry-failed` tries them again."
        )
        raise typer.Exit(EXIT_FAILED)


@app.command(epilog="Example: raysweep status search_spaces/quickstart.yaml")
def status(study: StudyFile, store: StoreOption = None, set_: SetOption = None) -> None:
    """Show how far a study is: cells by source, stages done, running, failed and open, and why stages failed."""
    from raysweep.report.live import not_needed_stages, running_stages
    from raysweep.report.status import status_summary
    from raysweep.results.complete import complete_ledger
    from raysweep.sweep import open_store
    from raysweep.sweep import plan as make_plan
    from raysweep.terminal import show

    opened = open_store(store)
    planned = make_plan(study, store=opened, set=set_ or [])
    ledger = complete_ledger(opened)
    stopped = {stage for stage, record in ledger.items() if record.status == "stopped"}
    names = {stage.id: (stage.kind, stage.name) for stage in planned.stages.values() if stage.id not in stopped}
    running = running_stages(opened, names)
    failures, spared = opened.failures(planned.stages), not_needed_stages(opened, planned.study.study)
    show(status_summary(planned, ledger, running, failures, spared))
    if any(ledger[stage].status == "failed" for stage in planned.stages if stage in ledger):
        raise typer.Exit(EXIT_FAILED)

"""Which share of a GPU to give a fine-tuning: more of them at a time, each of them slower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from raysweep.errors import StudyError
from raysweep.planning import Plan
from raysweep.planning.cost import Rates
from raysweep.simulation.forecast import Forecast, SizeForecast


def forecast_shares(
    plan: Plan, rates: Rates, shares: str, contention: float, run: Callable[[Plan, Rates], Forecast]
) -> Forecast:
    """Forecast a study for several shares of a GPU, given as ``1,0.5,0.25``; each cluster is named with each share.

    Where k fine-tunings share a GPU, each takes 1 + (k - 1) x contention times as long as one alone: 0 is a GPU that
    one of them leaves idle, 1 is a GPU that one of them keeps busy.

    Args:
        plan: the study's plan.
        rates: rates at the share that the study asks for now.
        shares: the shares to compare.
        contention: slow-down by each further fine-tuning on the same GPU.
        run: forecasts a plan at given rates.

    Raises:
        StudyError: if the list is wrong, or fine-tunings ask for no GPU.
    """
    found = [(share, run(*with_share(plan, rates, share, contention))) for share in _parse(shares)]
    sizes = [_named(size, share) for share, forecast in found for size in forecast.sizes]
    return replace(found[0][1], sizes=tuple(sizes), contention=contention)


def with_share(plan: Plan, rates: Rates, share: float, contention: float) -> tuple[Plan, Rates]:
    """Return the plan with another share of a GPU for each fine-tuning, and what it then takes.

    Raises:
        StudyError: if fine-tunings ask for no GPU.
    """
    resources = plan.study.resources
    now = resources.finetune
    if not now.asks_gpu:
        raise StudyError(
            f"--shares compares shares of one GPU; resources.finetune.gpus is {now.gpus}. "
            "Say that fine-tunings use one: --set resources.finetune.gpus=1"
        )
    finetune = now.model_copy(update={"gpus": share})
    study = plan.study.model_copy(update={"resources": resources.model_copy(update={"finetune": finetune})})
    slower = _slow_down(share, contention) / _slow_down(now.gpu_share, contention)
    return replace(plan, study=study), replace(rates, slow_down={**rates.slow_down, "finetune": slower})


def _slow_down(share: float, contention: float) -> float:
    return 1 + (int(1 / share + 1e-6) - 1) * contention


def _named(size: SizeForecast, share: float) -> SizeForecast:
    return replace(size, cluster=replace(size.cluster, name=f"{size.cluster.name}, {share:g} a fine-tuning"))


def _parse(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise StudyError(
            f"--shares {text!r} is no list of shares of a GPU; give numbers above 0 and up to 1: 1,0.5,0.25"
        )
    return list(dict.fromkeys(shares))

"""Everything that is said of several arms, as one JSON document: fits, hold-outs, multipliers, curves with bands."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from windtunnel.comparison.scaling.envelope import Envelope, find_optima, fit_envelope
from windtunnel.comparison.scaling.loss_law import NAMES, PARAMETERS, LossLaw, fit_loss_law
from windtunnel.comparison.scaling.multiplier import Multiplier, fit_multiplier
from windtunnel.comparison.scaling.noise import DRAWS, HoldOut
from windtunnel.comparison.scaling.pareto import Point, frontier
from windtunnel.comparison.scaling.reading import Source
from windtunnel.comparison.scaling.runs import REACH, Runs, require
from windtunnel.errors import InputError
from windtunnel.report import figures
from windtunnel.statistics import Interval

ROBUST_DRAWS = 200
_POINTS = 25


def fit_arms(
    source: Source,
    *,
    robust: bool = False,
    seed: int = 0,
    draws: int = DRAWS,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Fit every arm and compare each with the baseline. Raises `InputError` where an arm's runs cannot carry a fit.

    The same runs and seed give the same document. `robust` takes Huber's loss for L(N, D); its descents are slow, so
    that its intervals rest on at most 200 refits. `say` hears what is being done.
    """
    if draws < 100:
        raise InputError(f"draws: {draws} refits make no interval; at least 100")
    for name, runs in source.arms.items():
        require(runs, name)
    arms, envelopes = {}, {}
    for k, (name, runs) in enumerate(source.arms.items()):
        say(f"{name}: {runs.losses.size} runs, {runs.budgets} budgets over {runs.span:.3g}x")
        generator = np.random.default_rng((seed, k))
        law = fit_loss_law(runs, generator, robust=robust, draws=min(draws, ROBUST_DRAWS) if robust else draws)
        envelopes[name] = fit_envelope(runs, generator, draws=draws)
        by_body = find_optima(runs, generator, draws=draws, body=True).exponent
        arms[name] = _arm(runs, law, envelopes[name], by_body)
    base = envelopes[source.baseline].optima
    multipliers = {}
    for name in source.arms:
        if name != source.baseline:
            say(f"{name} against {source.baseline}")
            multipliers[name] = _multiplier(fit_multiplier(base, envelopes[name].optima))
    return {
        "baseline": source.baseline,
        "frontiers": {
            cost: frontier(_points(source, arms, cost), np.random.default_rng((seed, len(arms))), draws)
            for cost in ("compute", "parameters")
        },
        "sources": list(source.origins),
        "notes": list(source.notes),
        "seed": seed,
        "draws": draws,
        "arms": arms,
        "multipliers": multipliers,
    }


def _points(source: Source, arms: Mapping[str, Any], cost: str) -> list[Point]:
    """One point for each arm, budget and size: the mean of its runs."""
    found = []
    for name, runs in source.arms.items():
        law = arms[name]["loss_of_size_and_tokens"]
        places = np.stack([runs.budget, runs.parameters], axis=1)
        for place in np.unique(places, axis=0):
            rows = (places == place).all(axis=1)
            found.append(
                Point(
                    name,
                    float(np.exp(np.log(getattr(runs, cost)[rows]).mean())),
                    float(runs.losses[rows].mean()),
                    int(rows.sum()),
                    law["deviation"],
                    runs.losses.size - PARAMETERS,
                    f"{figures.counted(float(place[1]))} parameters",
                )
            )
    return found


def _arm(runs: Runs, law: LossLaw, envelope: Envelope, by_body: Interval) -> dict[str, Any]:
    names = ("parameters", "tokens", "compute", "losses", "body")
    return {
        "runs": {name: getattr(runs, name).tolist() for name in names} | {"budget": runs.budget.tolist()},
        "span": runs.span,
        "budgets": [_budget(runs, envelope, k) for k in range(runs.budgets)],
        "loss_of_size_and_tokens": {
            **{name: _interval(law.interval(name)) for name in NAMES},
            "optimum_exponent": _interval(law.optimum_exponent),
            "deviation": law.residuals.deviation,
            "loss": "huber" if law.robust else "relative squares",
            **_standing(law.held_out, law.reasons),
        },
        "loss_of_compute": {
            "E": None if envelope.irreducible is None else _interval(envelope.irreducible),
            "gamma": _interval(envelope.gamma),
            "correlation_of_E_and_gamma": envelope.correlation,
            "optimum_exponent": _optimum_exponent(envelope.optima.exponent, by_body),
            "curve": _curve(envelope.predict, float(envelope.optima.compute[0]), float(envelope.optima.compute[-1])),
            **_standing(envelope.held_out, envelope.reasons),
        },
    }


def _budget(runs: Runs, envelope: Envelope, k: int) -> dict[str, Any]:
    return {
        "compute": float(envelope.optima.compute[k]),
        "runs": int((runs.budget == k).sum()),
        "sizes": runs.sizes(k),
        "loss": _interval(envelope.optima.loss(k)),
        "parameters": _interval(envelope.optima.parameters(k)),
        "inside": envelope.optima.inside[k],
    }


def _optimum_exponent(with_head: Interval, by_body: Interval) -> dict[str, Any]:
    """a in N_opt ~ C^a under both counts; not to be quoted where they fall on either side of one half."""
    return {
        "with_head": _interval(with_head),
        "body": _interval(by_body),
        "quotable": (with_head.value - 0.5) * (by_body.value - 0.5) > 0,
    }


def _multiplier(found: Multiplier) -> dict[str, Any]:
    ends = {"smallest": found.smallest, "largest": found.largest}
    return {
        "separate_exponents": found.separate,
        "p_of_one_exponent": found.p,
        "at": {name: {"compute": compute, **_interval(found.at(compute))} for name, compute in ends.items()},
        "crossing": None if found.crossing is None else _interval(found.crossing),
        "curve": _curve(found.at, found.smallest, found.largest),
        **_standing(found.held_out, found.reasons),
    }


def _curve(at: Callable[[float], Interval], smallest: float, largest: float) -> dict[str, list[float]]:
    """A curve with its band over the runs' compute and up to 4x beyond."""
    inside, beyond = np.geomspace(smallest, largest, _POINTS), np.geomspace(largest, REACH * largest, 7)[1:]
    compute = [float(each) for each in (*inside, *beyond)]
    found = [at(each) for each in compute]
    return {
        "compute": compute,
        "value": [each.value for each in found],
        "low": [each.low for each in found],
        "high": [each.high for each in found],
        "extrapolated": [each > largest * (1 + 1e-9) for each in compute],
    }


def _standing(test: HoldOut, reasons: list[str]) -> dict[str, Any]:
    return {
        "held_out": {"compute": test.compute, "error": test.error, "band90": [test.low, test.high]},
        "claim": not reasons,
        "reasons": reasons,
    }


def _interval(found: Interval) -> dict[str, Any]:
    return {"value": found.value, "ci95": found.ends}

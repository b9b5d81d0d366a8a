"""The check of the learning rate at the full budget: half and twice the rate, for every arm, whatever trials said."""

import pytest

from windtunnel.comparison.engine import _Engine
from windtunnel.comparison.pool import Outcome
from windtunnel.comparison.request import plan_study
from windtunnel.selftest.small import request, written


class Curve:
    """A pool whose runs end with a loss that depends on the learning rate and on how long they were."""

    def __init__(self, study, best):
        self.study, self.best, self.asked = study, best, []

    def run(self, jobs, tick):
        for job in jobs:
            settings = job.payload["settings"]
            whole = settings["tokens"] == self.study.design.tokens
            self.asked.append((settings["learning_rate"], whole))
            off = settings["learning_rate"] / self.best[whole]
            end = {"loss": 3.0 + abs(off - 1) + abs(1 / off - 1)}
            yield Outcome(job, {"horizons": {"1.0": end}, "initial_loss": 7.0, "diverged": False})


@pytest.fixture
def study(tmp_path):
    changes = {"preset": "standard", "evaluation_tokens": 2_048, "tokens": 32 * 2048, "seeds": 3, "max_epochs": 100.0}
    return plan_study(request(written(tmp_path), tmp_path / "study", "llama", "palm", **changes))


def tuned(study, folder, factor):
    """The chosen rates where the best of the full budget is `factor` of the best of short trials."""
    centre = study.rule(study.arm("llama"), 7.0).centre
    pool = Curve(study, {False: centre, True: factor * centre})
    engine = _Engine(study, folder, pool, None)
    engine.tune()
    return engine.choices, centre, pool


def test_a_better_neighbour_at_the_full_budget_is_moved_to(study, tmp_path):
    choices, centre, pool = tuned(study, tmp_path, 0.5)
    assert choices["llama"].lr == pytest.approx(centre / 2, rel=0.05)
    assert "moved by the check at D" in choices["llama"].reason
    assert sum(whole for _, whole in pool.asked) >= 2 * 4  # every arm: three rates, and one beyond where it moved


def test_a_rate_that_holds_stays(study, tmp_path):
    choices, centre, _ = tuned(study, tmp_path, 1.0)
    assert choices["llama"].lr == pytest.approx(centre, rel=0.05)
    assert "moved" not in choices["llama"].reason

"""A pool that trains nothing: every job's losses follow a known law of its size, its length and its learning rate."""

import json
import math
from pathlib import Path

import numpy as np

from tests.comparison.simulated_ladder import loss
from windtunnel.comparison.pool import Pool
from windtunnel.ledger import n_active
from windtunnel.spec import from_json

INITIAL = 6.0


class SimulatedPool(Pool):
    """Losses by the law of `simulated_ladder`, with a parabola in ln(rate) around the best one of each size and length.

    The best rate of an arm is factor * N^by_parameters * D^by_tokens, `rates` by kind of mixer. saved: compute that
    ngpt saves. broken: jobs whose names hold this fail. lost: those of them
    that hold this diverge. killed_after: jobs after which it ends like a killed process.
    """

    workers = 2

    def __init__(self, rates, sigma=0.0, saved=1.0, broken=None, lost=None, killed_after=None):
        self.rates, self.sigma, self.saved = rates, sigma, saved
        self.broken, self.lost, self.killed_after, self.jobs = broken, lost, killed_after, {}

    @property
    def names(self):
        """Of all jobs that it was given."""
        return list(self.jobs)

    def submit(self, job):
        if self.killed_after is not None and len(self.jobs) >= self.killed_after:
            raise KeyboardInterrupt
        self.jobs[job.name] = job
        return job.name

    def answer(self, ticket):
        if self.broken is not None and self.broken in ticket:
            return {"error": "ValueError: broken on purpose"}
        payload = self.jobs[ticket].payload
        spec, settings = from_json(payload["spec"]), from_json(payload["settings"])
        diverged = self.lost is not None and self.lost in ticket
        end = INITIAL if diverged else self.law(spec, settings)
        result = {
            "horizons": {"1.0": {"tokens": settings.steps * settings.step_tokens, "loss": end, "bits_per_byte": end}},
            "initial_loss": INITIAL,
            "diverged": diverged,
            "seconds": 1.0,
        }
        folder = Path(payload["folder"])
        folder.mkdir(parents=True)
        identity = {"settings": settings.to_json(), "spec": {"fingerprint": spec.fingerprint()}}
        record = {"identity": identity, "data": {"fingerprint": payload["data"]}}
        (folder / "run.json").write_text(json.dumps(record))
        (folder / "result.json").write_text(json.dumps(result))
        return {"result": result}

    def law(self, spec, settings):
        """Sizes and lengths are carried to where the law was fitted."""
        parameters, tokens = n_active(spec), settings.tokens
        kind = "ngpt" if "Normalized" in type(spec.blocks[0].residual).__name__ else "llama"
        factor, by_parameters, by_tokens = self.rates[kind]
        best = factor * (parameters / 1e4) ** by_parameters * (tokens / 1e5) ** by_tokens
        scale = math.sqrt(self.saved) if kind == "ngpt" else 1.0
        fitted = loss(parameters * 1e4 * scale, tokens * 1e4 * scale)
        draw = np.random.default_rng([settings.seed, parameters % 9973, settings.tokens % 9973])
        missed = 0.05 * math.log(settings.learning_rate / best) ** 2
        return fitted + missed + self.sigma * draw.standard_normal()

    def begin(self):
        pass

    def end(self):
        pass

    def room(self):
        return 2

    def finished(self, tickets, seconds):
        return tickets

    def tokens(self):
        return 0

    def stop(self, tickets):
        pass

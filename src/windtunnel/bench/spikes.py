"""Is it the data or the state that makes a loss spike? PaLM's replay (arXiv 2204.02311, section 5.1), at a small size.

Models that differ in their initial weights alone read the same data in the same order, by plain SGD at a rate at which
training is about to break. Where one of them spikes, what it read is given to other states too: to itself as it was
earlier, and to the others. PaLM found that the same batches do not spike from another checkpoint.
"""

from dataclasses import dataclass, field
from typing import Any

from windtunnel.bench.turns import Say
from windtunnel.data.corpus import read_corpus
from windtunnel.data.sampler import Sampler
from windtunnel.data.shards import default_cache, prepare
from windtunnel.execution import Execution
from windtunnel.recipes.gpt3 import gpt3
from windtunnel.report.tables import Table
from windtunnel.training.loop import Snapshot, Trainer
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.spikes import Detector, Spikes

STEPS, LEAD, AFTER = 300, 8, 8  # steps of a run; steps before and after a spike's onset whose data is given again
_EVERY = 10  # steps between the states that are kept
_EARLIER = (20, 40)  # how many steps earlier a model's own other states are
_SIZES: dict[str, Any] = {"layers": 2, "width": 48, "heads": 4, "vocab": 257, "context": 64}
_SETTINGS = TrainingSettings(
    tokens=STEPS * 8 * 64,
    context=64,
    batch_size=8,
    learning_rate=0.7,
    optimiser="sgd",
    weight_decay=0.0,
    warmup=0.2,
    clip=None,
)


@dataclass
class _Run:
    """A model's way: the step at which it spiked, if it did, and states to go back to, with what was seen by then."""

    seed: int
    onset: int | None = None
    states: dict[int, tuple[Snapshot, dict[str, Any]]] = field(default_factory=dict)

    def latest(self, step: int) -> int | None:
        """The last kept state at or before a step."""
        return max((each for each in self.states if each <= step), default=None)


def run(rounds: int, threads: int, say: Say) -> dict[str, Any]:
    """`rounds` models; how often the data of each spike made a spike again, from the same state and from others."""
    dataset = prepare(read_corpus(None), "bytes", context=64, heldout_tokens=4096, cache=default_cache())
    resolved = Execution(device="cpu", threads=threads).resolve()
    with resolved.applied():
        trainer = Trainer(gpt3(**_SIZES).build(), Sampler(dataset.train, 64, 0), _SETTINGS, resolved)
        runs: list[_Run] = []
        for seed in range(rounds):
            runs.append(_train(trainer, seed))
            say(f"model {seed + 1} of {rounds}: " + (f"spike at step {runs[-1].onset}" if runs[-1].onset else "none"))
        replays = [replay for one in runs if one.onset is not None for replay in _replays(trainer, one, runs)]
    return {"models": rounds, "steps": STEPS, "onsets": [one.onset for one in runs], "replays": replays}


def table(result: dict[str, Any]) -> Table:
    """Replays by the state that read the data."""
    rows = []
    for state in ("the same state", "itself, earlier", "another model"):
        spiked = [replay["spiked"] for replay in result["replays"] if replay["state"] == state]
        rows.append([state, str(len(spiked)), str(sum(spiked))])
    onsets = ", ".join("none" if onset is None else str(onset) for onset in result["onsets"])
    return Table(
        caption=f"{result['models']} models at the edge of breaking, one order of data",
        columns=("state that reads the data of a spike", "replays", "spikes"),
        rows=rows,
        numeric=(1, 2),
        note=f"Spikes began at steps: {onsets}.",
    )


def _train(trainer: Trainer, seed: int) -> _Run:
    """One model until it spikes or its steps are over."""
    trainer.model.initialize(seed)
    for optimiser in trainer.optimisers:
        optimiser.state.clear()
    way, detector = _Run(seed), Detector()
    for step in range(STEPS):
        if step % _EVERY == 0:
            way.states[step] = (trainer.snapshot(), detector.to_json())
        _advance(trainer, detector, step)
        if detector.onset is not None:
            way.onset = detector.onset
            break
    return way


def _replays(trainer: Trainer, one: _Run, runs: list[_Run]) -> list[dict[str, Any]]:
    """The data around a spike's onset, read by other states: of this model, and of models that have not yet spiked."""
    assert one.onset is not None
    first = max(0, one.onset - 1 - LEAD)
    readers = [("the same state", one, one.latest(first))]
    readers += [("itself, earlier", one, one.latest(first - earlier)) for earlier in _EARLIER]
    for other in runs:
        if other is not one:
            last = STEPS if other.onset is None else other.onset - 1 - LEAD - max(_EARLIER)
            readers.append(("another model", other, other.latest(min(first, last))))
    return [
        {"onset": one.onset, "state": state, "step": step, "spiked": _replay(trainer, reader, step, first)}
        for state, reader, step in readers
        if step is not None
    ]


def _replay(trainer: Trainer, reader: _Run, step: int, first: int) -> bool:
    """Whether a state spikes in the steps from `first` on: their data, their learning rates.

    A state kept shortly before is taken there by the steps that lie between, as it went itself.
    """
    snapshot, seen = reader.states[step]
    trainer.restore(snapshot, "replay")
    detector = Detector(**seen)
    for index in range(step if first - step < _EVERY else first, first + LEAD + AFTER):
        _advance(trainer, detector, index)
    return detector.onset is not None


def _advance(trainer: Trainer, detector: Detector, step: int) -> None:
    done = trainer.advance(step, None)
    detector.observe(Spikes(), step + 1, done.loss.item(), done.norm.item())

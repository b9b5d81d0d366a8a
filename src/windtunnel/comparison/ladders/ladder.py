"""A ladder: one question at many sizes and budgets, written down and hashed before any run."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from windtunnel.checkpoint import read_json, write_json
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.ladders.design import Design
from windtunnel.comparison.study import Study, check_registered, costs, hash_of, study_from
from windtunnel.errors import InputError
from windtunnel.ledger import Ledger
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.workload import Workload

FORMAT = 1
NOUN = "ladder"


@dataclass(frozen=True, order=True)
class Rung:
    """One run of one arm but for its seed: which budget, and which of the ladder's sizes."""

    arm: str
    budget: int
    size: int

    @property
    def folder(self) -> str:
        """In a folder of runs or trials."""
        return f"{self.arm}/budget-{self.budget + 1}/size-{self.size + 1}"


@dataclass(frozen=True)
class Ladder:
    """All sizes, smallest first, each a study of the same arms matched at that size; a budget takes some of them."""

    design: Design
    sizes: tuple[Study, ...]

    @property
    def labels(self) -> list[str]:
        """The arms."""
        return [arm.label for arm in self.sizes[0].arms]

    @property
    def baseline(self) -> str:
        return self.sizes[0].baseline

    @property
    def workload(self) -> Workload:
        return self.sizes[0].workload

    @property
    def title(self) -> str:
        return " · ".join(self.labels)

    def sizes_of(self, budget: int) -> range:
        """The sizes of a budget."""
        first = self.design.offsets[budget]
        return range(first, first + self.design.sizes)

    def rungs(self, arm: str, budget: int) -> list[Rung]:
        """A budget's runs of one arm, smallest size first."""
        return [Rung(arm, budget, size) for size in self.sizes_of(budget)]

    def all_rungs(self) -> list[Rung]:
        """Of every arm and budget."""
        budgets = range(len(self.design.budgets))
        return [rung for budget in budgets for arm in self.labels for rung in self.rungs(arm, budget)]

    def sweeps(self, arm: str) -> list[Rung]:
        """Where an arm's learning rate is tuned: three sizes of the smallest budget, the middle one of the next."""
        first, second = self.rungs(arm, 0), self.rungs(arm, 1)
        return [first[0], first[self.design.middle], first[-1], second[self.design.middle]]

    def check(self, arm: str) -> Rung:
        """Where the rule is put to the test: the middle size of the largest budget."""
        return self.rungs(arm, len(self.design.budgets) - 1)[self.design.middle]

    def arm(self, rung: Rung) -> Arm:
        return self.sizes[rung.size].arm(rung.arm)

    def costs(self, rung: Rung) -> Ledger:
        """Of the rung's model; its budget does not matter."""
        return self._ledgers[rung.arm, rung.size]

    @cached_property
    def _ledgers(self) -> dict[tuple[str, int], Ledger]:
        return {(arm.label, index): costs(study, arm) for index, study in enumerate(self.sizes) for arm in study.arms}

    def tokens(self, rung: Rung) -> int:
        """D: the budget over the ledger's FLOPs a token, in whole steps."""
        step = self.design.step_tokens
        return round(self.design.budgets[rung.budget] / self.costs(rung).flops_per_token / step) * step

    def flops(self, rung: Rung) -> float:
        """What the run takes, whole steps and all."""
        return self.tokens(rung) * self.costs(rung).flops_per_token

    def study(self, rung: Rung) -> Study:
        """The study whose runs have this rung's size and length."""
        study = self.sizes[rung.size]
        return replace(study, design=replace(study.design, tokens=self.tokens(rung)))

    def run_settings(self, rung: Rung, lr: float, seed: int) -> TrainingSettings:
        """A reported run."""
        return self.study(rung).run_settings(self.arm(rung), lr, seed)

    def trial_settings(self, rung: Rung, lr: float) -> TrainingSettings:
        """A tuning run: seed 0, never reported."""
        return self.study(rung).trial_settings(self.arm(rung), lr, 1.0)

    def question(self) -> dict[str, Any]:
        """The pre-registered fields, as JSON."""
        return {
            "format": FORMAT,
            "design": asdict(self.design),
            "sizes": {str(index + 1): study.question() for index, study in enumerate(self.sizes)},
        }

    @property
    def id(self) -> str:
        """The hash of the question."""
        return hash_of(self.question())


def check_folder(ladder: Ladder, folder: Path) -> None:
    """Refuse a folder that holds something else, naming what differs where it is another ladder."""
    check_registered(folder, NOUN, ladder.id, ladder.question())


def save_ladder(ladder: Ladder, folder: Path, created: str) -> None:
    """Write `ladder.json` once; one that is there already is left as it was registered."""
    path = folder / f"{NOUN}.json"
    if not path.is_file():
        first = ladder.sizes[0]
        record = {NOUN: ladder.id, "title": ladder.title, "created": created, "question": ladder.question()}
        record |= {
            "data": first.data,
            "workload": first.workload.address(),
            "execution": first.execution.to_json(),
        }
        write_json(path, record)


def load_ladder(folder: Path, packages: tuple[str, ...] = ()) -> tuple[Ladder, dict[str, Any]]:
    """The ladder that a folder holds, and its record; the hash of the question is verified."""
    path = folder / f"{NOUN}.json"
    if not path.is_file():
        raise InputError(f"{folder}: no {NOUN}.json; name the folder that `windtunnel scale --out` wrote")
    record = read_json(path)
    try:
        question = record["question"]
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in question["design"].items()
        }
        sizes = tuple(study_from({**record, "question": one}, packages) for one in question["sizes"].values())
        ladder = Ladder(Design(**given), sizes)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged or from another version ({type(error).__name__}: {error})") from error
    if ladder.id != record[NOUN]:
        raise InputError(f"{path}: the question does not have the registered hash {record[NOUN]}; it was changed")
    return ladder, record

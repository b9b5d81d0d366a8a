"""A study: one question, written down and hashed before any run."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import windtunnel.parts  # noqa: F401 - defines the kinds that files may hold
from windtunnel.checkpoint import read_json, write_json
from windtunnel.comparison.arms import Arm
from windtunnel.comparison.looks import SHARES, look_of, seeds_at
from windtunnel.comparison.matching import Match
from windtunnel.comparison.presets import Preset
from windtunnel.comparison.probes import PROBES, Probe, probe_folder
from windtunnel.comparison.published import centre, published_values, shares_trunk
from windtunnel.comparison.tried import tried_before
from windtunnel.comparison.tuning import TuningRule
from windtunnel.data.mixture import Mix, Share
from windtunnel.data.tasks import Task
from windtunnel.errors import InputError
from windtunnel.execution import Execution
from windtunnel.ledger import Ledger, keeps_maps, ledger
from windtunnel.recipes.sizing import Training
from windtunnel.root import Model
from windtunnel.spec import from_json
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.workload import Synthetic, Workload, open_workload

FORMAT = 1
RATIO = 2.0  # of neighbouring learning rates in a sweep
TASK_RATIO = math.sqrt(2)  # what is learned suddenly is learned within a narrow range of rates


@dataclass(frozen=True)
class Study:
    """A question ready to be answered: everything that decides a figure, and nothing else, is in `question()`.

    reference: nats a token at D that the baseline has to reach, or every verdict is preliminary.
    probes: names of `PROBES` that are asked.
    looks: how often the seeds may be looked at, and doubled where a verdict is open. look: at which of them the study
    is; it alone is not part of the question.
    ablation: which parts of a recipe the arms have, and in which order; empty where arms are recipes.
    """

    title: str
    arms: tuple[Arm, ...]
    baseline: str
    design: Preset
    data: dict[str, Any]
    execution: Execution
    device: str
    dtype: str
    margin: float
    primary: str | None
    workload: Workload
    reference: float | None = None
    probes: tuple[str, ...] = ()
    looks: int = 1
    look: int = 1
    mixture: Mix = ()
    ablation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Task | None:
        """The synthetic task, if this is about one."""
        return self.workload.task if isinstance(self.workload, Synthetic) else None

    def arm(self, label: str) -> Arm:
        return next(arm for arm in self.arms if arm.label == label)

    @property
    def variants(self) -> list[Arm]:
        return [arm for arm in self.arms if arm.label != self.baseline]

    def seeds(self, arm: Arm) -> list[int]:
        """Reported seeds of an arm; tuning uses seed 0, which is never among them."""
        return [arm.seed_offset + seed for seed in range(1, self.seeds_at_look + 1)]

    @property
    def seeds_at_look(self) -> int:
        """How many seeds an arm has at this look."""
        return seeds_at(self.design.seeds, self.look)

    @property
    def alpha(self) -> float:
        """The chance of a false verdict that this look may take."""
        return SHARES[self.looks][self.look - 1]

    def rule(self, arm: Arm, initial_loss: float) -> TuningRule:
        """The learning-rate sweep of an arm."""
        return TuningRule(
            centre=centre(arm),
            initial_loss=initial_loss,
            points=self.design.trials,
            ratio=RATIO if self.task is None else TASK_RATIO,
            edge_cap=self.design.edge_cap,
            refine=self.design.refine,
        )

    def trial_settings(self, arm: Arm, lr: float, fraction: float) -> TrainingSettings:
        """A tuning run: seed 0, data order 0, one horizon at `fraction` of D."""
        return self._settings(
            arm, lr, seed=0, tokens=round(self.design.tokens * fraction), horizons=(1.0,), longest=1.0
        )

    def run_settings(self, arm: Arm, lr: float, seed: int) -> TrainingSettings:
        """A reported run, with a cooldown branch for each horizon if they can share a trunk."""
        longest = self.design.longest
        horizons = self.design.horizons if shares_trunk(arm) else (longest,)
        return self._settings(
            arm,
            lr * arm.lr_factor,
            seed=seed,
            tokens=round(self.design.tokens * longest * arm.token_factor),
            horizons=tuple(horizon / longest for horizon in horizons),
            longest=longest,
        )

    def shorter_settings(self, arm: Arm, lr: float, seed: int) -> dict[float, TrainingSettings]:
        """Runs of their own for the shorter horizons of an arm that has no trunk; empty for all others."""
        if shares_trunk(arm):
            return {}
        rate, tokens = lr * arm.lr_factor, self.design.tokens * arm.token_factor
        return {
            horizon: self._settings(
                arm, rate, seed=seed, tokens=round(tokens * horizon), horizons=(1.0,), longest=horizon
            )
            for horizon in self.design.horizons
            if horizon < self.design.longest
        }

    def reported_settings(self, arm: Arm, lr: float, seed: int) -> dict[str, TrainingSettings]:
        """Every reported run of a seed, by its folder in the arm's."""
        shorter = self.shorter_settings(arm, lr, seed)
        return {f"seed-{seed}": self.run_settings(arm, lr, seed)} | {
            shorter_folder(horizon, seed): settings for horizon, settings in shorter.items()
        }

    def probes_of(self, arm: Arm) -> list[Probe]:
        """What is asked with runs of this arm; nothing of arms that depart from the study's rules."""
        if arm.control or arm.published or arm.twin_of:
            return []
        asked = [probe for name in self.probes for probe in PROBES[name]]
        return [probe for probe in asked if probe.everyone or arm.label == self.baseline]

    def all_settings(self, arm: Arm, lr: float, seed: int) -> dict[str, TrainingSettings]:
        """Every run of a seed after tuning, reported ones and probes, by its folder in the arm's."""
        tokens, first = self.design.tokens, self.seeds(arm)[0]
        alone = self._settings(arm, lr, seed=seed, tokens=tokens, horizons=(1.0,), longest=1.0)
        probes = {probe_folder(probe, seed): probe.change(alone, first) for probe in self.probes_of(arm)}
        return self.reported_settings(arm, lr, seed) | probes

    def horizon_key(self, horizon: float) -> str:
        """The name of a horizon in a run's result: runs count in fractions of their own longest one."""
        return str(horizon / self.design.longest)

    def question(self) -> dict[str, Any]:
        """The pre-registered fields, as JSON."""
        return {
            "format": FORMAT,
            "baseline": self.baseline,
            "design": asdict(self.design),
            "margin": self.margin,
            "primary": self.primary,
            "data": self._data(),
            "policy": {"device": self.device, "dtype": self.dtype, "compile": self.execution.compile},
            "arms": [_arm_json(arm) for arm in self.arms],
            **({} if self.reference is None else {"reference": self.reference}),
            **({"probes": list(self.probes)} if self.probes else {}),
            **({"looks": self.looks} if self.looks > 1 else {}),
            **({"mixture": {share.set: share.weight for share in self.mixture}} if self.mixture else {}),
            **({"ablation": dict(self.ablation)} if self.ablation else {}),
        }

    def _data(self) -> dict[str, Any]:
        if self.task is not None:
            return self.workload.address()
        return {name: self.data.get(name) for name in ("fingerprint", "tokenizer_fingerprint", "vocab")}

    @property
    def id(self) -> str:
        """The hash of the question."""
        return hash_of(self.question())

    def _settings(
        self, arm: Arm, lr: float, *, seed: int, tokens: int, horizons: tuple[float, ...], longest: float
    ) -> TrainingSettings:
        warmup = self.design.warmup if arm.training.warmup is None else arm.training.warmup
        decay = TrainingSettings.weight_decay if arm.training.weight_decay is None else arm.training.weight_decay
        rules: dict[str, Any] = {
            "warmup": warmup / longest, "cooldown": self.design.cooldown, "weight_decay": decay
        }  # fmt: skip
        if arm.published:
            rules = published_values(arm)
        return TrainingSettings(
            tokens=tokens,
            context=self.design.context,
            batch_size=self.design.batch_size,
            learning_rate=lr,
            seed=seed,
            data_seed=seed,
            horizons=horizons,
            evaluation_tokens=self.design.evaluation_tokens,
            **rules,
            mixture=self.mixture,
        )


def shorter_folder(horizon: float, seed: int) -> str:
    """The folder, in its arm's, of a run for a shorter horizon."""
    return f"horizon-{horizon:g}/seed-{seed}"


def check_folder(study: Study, folder: Path) -> None:
    """Refuse a folder that holds something else, naming what differs where it is another study."""
    check_registered(folder, "study", study.id, study.question())


def check_registered(folder: Path, noun: str, id_: str, question: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but this question, registered in `<noun>.json`."""
    path = folder / f"{noun}.json"
    if path.is_file():
        known = read_json(path)
        if known.get(noun) != id_:
            changed = ", ".join(sorted(_changed(known.get("question", {}), question))) or "its format"
            raise InputError(
                f"{folder}: holds another {noun} ({known.get(noun)}; differs in {changed}); use another --out"
            )
    elif folder.exists() and (not folder.is_dir() or any(not entry.name.startswith(".") for entry in folder.iterdir())):
        raise InputError(f"{folder}: is not empty and holds no {noun}; use another --out")


def hash_of(question: dict[str, Any]) -> str:
    """SHA-256 of a question, shortened."""
    text = json.dumps(question, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_study(study: Study, folder: Path, created: str) -> None:
    """Write `study.json` once; a study that is there already is left as it was registered."""
    if not (folder / "study.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        question = study.question()
        record = {
            "study": study.id,
            "title": study.title,
            "created": created,
            "question": question,
            "data": study.data,
            "workload": study.workload.address(),
            "execution": study.execution.to_json(),
            "tried": tried_before(folder, question),
        }
        write_json(folder / "study.json", record)


def load_study(folder: Path, packages: tuple[str, ...] = ()) -> tuple[Study, dict[str, Any]]:
    """The study that a folder holds, and its record; the hash of the question is verified."""
    path = folder / "study.json"
    if not path.is_file():
        raise InputError(f"{folder}: no study.json; name the folder that `windtunnel compare --out` wrote")
    record = read_json(path)
    try:
        study = study_from(record, packages)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged or from another version ({type(error).__name__}: {error})") from error
    if study.id != record["study"]:
        raise InputError(f"{path}: the question does not have the registered hash {record['study']}; it was changed")
    return replace(study, look=min(look_of(folder), study.looks)), record


def study_from(record: dict[str, Any], packages: tuple[str, ...]) -> Study:
    """The study that a record describes, its hash not looked at."""
    question = record["question"]
    execution = from_json(record["execution"])
    assert isinstance(execution, Execution)
    design: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in question["design"].items()
    }
    return Study(
        title=record["title"],
        arms=tuple(_arm_from(arm, packages) for arm in question["arms"]),
        baseline=question["baseline"],
        design=Preset(**design),
        data=record["data"],
        execution=execution,
        device=question["policy"]["device"],
        dtype=question["policy"]["dtype"],
        margin=question["margin"],
        primary=question["primary"],
        reference=question.get("reference"),
        probes=tuple(question.get("probes", ())),
        looks=question.get("looks", 1),
        workload=open_workload(record.get("workload") or {"folder": record["dataset_folder"]}),
        mixture=tuple(Share(set=name, weight=weight) for name, weight in question.get("mixture", {}).items()),
        ablation=question.get("ablation", {}),
    )


def _arm_json(arm: Arm) -> dict[str, Any]:
    plain = {
        **arm.__dict__,
        "spec": arm.spec.to_json(),
        "training": asdict(arm.training),
        "matching": asdict(arm.matching),
    }
    if not arm.published:  # as studies have it that know only the common settings
        del plain["published"]
    return {**plain, "warnings": list(arm.warnings)}


def _arm_from(data: dict[str, Any], packages: tuple[str, ...]) -> Arm:
    spec = from_json(data["spec"], packages)
    assert isinstance(spec, Model)
    return Arm(
        **{
            **data,
            "spec": spec,
            "training": Training(**data["training"]),
            "matching": Match(**data["matching"]),
            "warnings": tuple(data["warnings"]),
        }
    )


def _changed(old: Any, new: Any, path: str = "") -> set[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = {*old, *new}
        return {part for name in names for part in _changed(old.get(name), new.get(name), f"{path}.{name}".lstrip("."))}
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return {part for i, pair in enumerate(zip(old, new, strict=True)) for part in _changed(*pair, f"{path}.{i}")}
    same = list(old) == list(new) if isinstance(old, list | tuple) and isinstance(new, list | tuple) else old == new
    return set() if same else {path}


def costs(study: Study, arm: Arm) -> Ledger:
    """The arm's ledger under the kernels that this study runs."""
    kept = keeps_maps(study.design.context, study.device, study.dtype, study.execution.compile)
    optimiser = arm.published.get("optimiser", TrainingSettings.optimiser)
    return ledger(arm.spec, study.design.context, kept, optimiser)

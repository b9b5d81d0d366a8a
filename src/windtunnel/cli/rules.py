"""Which training settings a run gets: what was typed, over what its recipe or its paper says, over the common ones."""

from typing import TYPE_CHECKING, Any

from windtunnel.errors import InputError

if TYPE_CHECKING:
    from windtunnel.root import Model
    from windtunnel.training.settings import TrainingSettings

RULES = ("own", "common", "paper")
_PART_OF_A_PAPER = ("optimiser", "schedule")  # the paper's other numbers mean something else under another of these


def training_settings(
    recipe: str, rules: str, typed: dict[str, Any], spec: "Model"
) -> "tuple[TrainingSettings, list[str]]":
    """The settings of a run, and a remark for each that leaves the common one without having been typed.

    typed: fields of `TrainingSettings`, None where nothing was; `ramp` and `skips` as text.
    """
    from windtunnel.mup import MuP
    from windtunnel.training.settings import BATCH_SIZE, TrainingSettings

    given = {name: value for name, value in typed.items() if value is not None}
    width = spec.initial.base if isinstance(spec.initial, MuP) else spec.width  # whose learning rate it takes
    declared, why = _declared(recipe, rules, width, given)
    settings = TrainingSettings(**read_stages({"batch_size": BATCH_SIZE, "context": spec.context, **declared, **given}))
    left = {name: getattr(settings, name) for name in declared if name not in given and name != "learning_rate"}
    remarks = [
        f"{name} {spelled(value)} instead of the common {spelled(getattr(TrainingSettings, name))}"
        for name, value in left.items()
        if value != getattr(TrainingSettings, name)
    ]
    return settings, [*remarks, why] if remarks and why else remarks


def read_stages(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of `TrainingSettings` with a ramp and skips as they are typed: `4:0.2,8:0.45` and `1000:1300`."""
    skips = tuple(_skip(text) for text in values.get("skips", ()))
    ramp = values.get("ramp")
    return {**values, "skips": skips} | ({"ramp": _ramp(ramp, values["batch_size"])} if isinstance(ramp, str) else {})


def spelled(value: Any) -> str:
    """A setting's value for people; a ramp as its stages."""
    if isinstance(value, tuple):
        return ", ".join(f"{share:.3g} until {until:.3g}" for share, until in value) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _declared(recipe: str, rules: str, width: int, given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from windtunnel import recipes

    if rules not in RULES:
        raise InputError(f"--settings: own, common or paper, got {rules!r}")
    training = recipes.training(recipe)
    rate = {"learning_rate": training.learning_rate_at(width)}
    if rules == "common":
        return rate, ""
    if rules == "own":
        own = {"weight_decay": training.weight_decay, "warmup": training.warmup}
        return rate | {name: value for name, value in own.items() if value is not None}, training.why
    paper = recipes.paper(recipe)
    if paper is None:
        known = [name for name in recipes.names() if recipes.paper(name) is not None]
        raise InputError(f"--settings paper: {recipe} says nothing of its paper's training; {', '.join(known)} do")
    _refuse_contradictions(recipe, dict(paper.settings), given)
    return rate | dict(paper.settings), paper.why


def _refuse_contradictions(recipe: str, paper: dict[str, Any], given: dict[str, Any]) -> None:
    from windtunnel.training.settings import TrainingSettings

    for name in _PART_OF_A_PAPER:
        published = paper.get(name, getattr(TrainingSettings, name))
        if given.get(name, published) != published:
            raise InputError(
                f"--{name} {given[name]} contradicts --settings paper, in which {recipe} has {published}; "
                "leave one of the two out"
            )


def _skip(text: str) -> tuple[int, int]:
    """`1000:1300` as two steps."""
    start, _, stop = text.partition(":")
    try:
        return int(start), int(stop)
    except ValueError:
        raise InputError(f"--skip: expected two steps as FROM:TO, such as 1000:1300, got {text!r}") from None


def _ramp(text: str, batch_size: int) -> tuple[tuple[float, float], ...]:
    """`4:0.2,8:0.45` as shares of the full batch."""
    stages: list[tuple[float, float]] = []
    for stage in text.split(","):
        size, _, until = stage.partition(":")
        try:
            stages.append((int(size) / batch_size, float(until)))
        except ValueError:
            raise InputError(
                f"--batch-ramp: expected stages of sequences:share, such as 4:0.2,8:0.45, got {text!r}"
            ) from None
    return tuple(stages)

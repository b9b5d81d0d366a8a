"""Training that begins with the weights of a run, trained here or imported: its settings."""

from typing import Any

from windtunnel.data.tokenizers import Tokenizer
from windtunnel.errors import InputError
from windtunnel.runs import Stored
from windtunnel.spec import from_json
from windtunnel.training.settings import BATCH_SIZE, TrainingSettings

RATE = 0.1  # of the learning rate that the run was trained with
# For weights whose training is not on record: what Llama 2 (supervised fine-tuning), position interpolation and YaRN
# took for their smaller models.
IMPORTED_RATE = 2e-5
_AFRESH = ("schedule", "warmup", "cooldown", "flat", "constant", "accumulation", "ramp", "skips", "horizons")


def trained_settings(source: Stored) -> TrainingSettings | None:
    """How a run was trained; None for an imported one. Raises `InputError` for a run that is not at its end."""
    found = source.record["identity"].get("settings")
    if found is None:
        return None
    if source.record["result"] is None:
        raise InputError(f"{source.folder}: is not finished; go on with it by --resume first")
    settings = from_json(found, path="settings")
    assert isinstance(settings, TrainingSettings)
    return settings


def settings_from(source: Stored, **given: Any) -> TrainingSettings:
    """What a run is trained further by: as it was, from the beginning of a new schedule, at a tenth of its rate.

    An imported one: the defaults, at `IMPORTED_RATE`, on as many tokens a sequence as its context. given: fields that
    replace these; `tokens` is one.
    """
    old = trained_settings(source)
    if old is None:
        context = {"context": source.spec.context, "batch_size": BATCH_SIZE, "learning_rate": IMPORTED_RATE}
        return TrainingSettings(**{**context, **given})
    fresh = {name: getattr(TrainingSettings, name) for name in _AFRESH}
    return old.replace(**{**fresh, "learning_rate": RATE * old.learning_rate, **given})


def own_tokenizer(source: Stored) -> Tokenizer:
    """The run's tokenizer, without which no text can be put before it."""
    found = source.tokenizer()
    if found is None:
        raise InputError(f"{source.folder}: has no tokenizer, and so no text can be read by it")
    return found


def origin_of_rate(source: Stored) -> str:
    """Where the learning rate comes from, in words."""
    if trained_settings(source) is None:
        return "usual for imported weights"
    return f"a tenth of {source.folder.name}'s"

"""Every evaluation by its name; `parse_evaluations` reads `loss,length:longest=4,hits`."""

import dataclasses

from windtunnel.errors import InputError
from windtunnel.evaluation.base import Evaluation
from windtunnel.evaluation.by_position import ByPosition
from windtunnel.evaluation.context_gain import ContextGain
from windtunnel.evaluation.decoding import Decoding
from windtunnel.evaluation.hits import Hits
from windtunnel.evaluation.length import Length
from windtunnel.evaluation.retrieval.attention import AttentionOnNeedle
from windtunnel.evaluation.retrieval.needle import MultiNeedle, Needle, Passkey
from windtunnel.evaluation.retrieval.ruler import Ruler
from windtunnel.evaluation.shuffled_prefix import ShuffledPrefix
from windtunnel.evaluation.text_loss import TextLoss
from windtunnel.spec import nearest
from windtunnel.values import parse_settings

_KINDS: tuple[type[Evaluation], ...] = (
    TextLoss,
    ByPosition,
    ContextGain,
    ShuffledPrefix,
    Hits,
    Length,
    Passkey,
    Needle,
    MultiNeedle,
    AttentionOnNeedle,
    Ruler,
    Decoding,
)
EVALUATIONS: dict[str, type[Evaluation]] = {kind.name: kind for kind in _KINDS}
USUAL = ("loss", "positions", "context-gain", "shuffled-prefix", "hits")


def parse_evaluations(text: str, option: str = "--tasks") -> tuple[Evaluation, ...]:
    """Evaluations as they are typed: names, each followed by settings off their defaults.

    A name and its settings are `name:setting=value,setting=value`; what has an equals sign and no colon belongs to the
    name before it. Several values of one setting are joined by `+`. option: where they were typed. Raises `InputError`
    with what is known.
    """
    asked: list[tuple[str, list[str]]] = []
    for piece in text.split(","):
        head, colon, setting = piece.strip().partition(":")
        if colon or "=" not in head:
            asked.append((head, [setting] if colon else []))
        elif asked:
            asked[-1][1].append(head)
        else:
            raise InputError(f"{option}: {piece!r} is a setting, and no task stands before it")
    found = tuple(_make(name, settings, option) for name, settings in asked)
    names = [evaluation.name for evaluation in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{option}: {twice} is asked for twice; give it once, with all its settings")
    return found


def _make(name: str, texts: list[str], option: str) -> Evaluation:
    if name not in EVALUATIONS:
        raise InputError(f"{option}: unknown task {name!r}{nearest(name, EVALUATIONS)}")
    kind = EVALUATIONS[name]
    known = {field.name: field for field in dataclasses.fields(kind)}
    settings = parse_settings(texts)
    for setting, value in settings.items():
        if setting not in known:
            raise InputError(f"{option}: {name} has no setting {setting!r}{nearest(setting, known)}")
        if str(known[setting].type).startswith("tuple"):
            parts = str(value).split("+")
            settings[setting] = tuple(parse_settings([f"{setting}={part}"])[setting] for part in parts)
    return kind(**settings)

"""The ledger of what was tried before: the more variants, the more the best of them owes to luck (protocol 9.7)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from windtunnel.checkpoint import read_json
from windtunnel.errors import InputError

_NAMED = 12


def tried_before(folder: Path, question: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Studies of the same text or task in the folders beside this one, oldest first: id, folder, created, variants.

    Controls are not variants. What cannot be read as a study is passed over.
    """
    beside = [path for path in folder.absolute().parent.glob("*/study.json") if path.parent.name != folder.name]
    found = [one for path in beside if (one := _study(path, question["data"])) is not None]
    return sorted(found, key=lambda one: (one["created"], one["folder"]))


def tried_words(tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence for the reader; none where nothing was tried."""
    names = list(dict.fromkeys(str(label) for one in tried for label in one["variants"]))
    if not names:
        return []
    count = sum(len(one["variants"]) for one in tried)
    studies = "one study" if len(tried) == 1 else f"{len(tried)} studies"
    named = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return [
        f"{count} variant{'s' if count > 1 else ''} had been tried on the same data before, in {studies} beside this "
        f"one ({named}); p values and intervals count the variants of this study alone."
    ]


def _study(path: Path, data: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a study asked; None where it was of other data."""
    try:
        record = read_json(path)
        question = record["question"]
        arms = [arm["label"] for arm in question["arms"] if arm["tuned_as"] == arm["label"]]
        variants = [label for label in arms if label != question["baseline"]]
        known = {"study": str(record["study"]), "created": str(record["created"]), "variants": variants}
        return {"folder": path.parent.name, **known} if question["data"] == data else None
    except (InputError, KeyError, TypeError):
        return None

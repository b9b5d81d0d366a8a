"""What the tests compared, collected into docs/proof.md: `make proof` writes it.

A test that holds a recipe or a part to something independent takes the fixture `proof` and says what it saw:

    proof("llama", "transformers LlamaForCausalLM", logits=1.3e-7, gradients=4e-7, decoding=1.4e-7)

The keywords name what was compared (`_` reads as a space), the values are the largest differences, relative to the
largest entry unless the name says otherwise; 0 is equality bit for bit.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

PAGE = Path(__file__).parent.parent / "docs" / "proof.md"
BEGIN, END = "<!-- written by `make proof` -->", "<!-- end of what `make proof` writes -->"
PROPERTY = "proof"


class Proof(Protocol):
    """The fixture's type."""

    def __call__(self, subject: str, against: str, /, **differences: float) -> None: ...


def page(text: str, records: Iterable[dict[str, Any]], recipes: Sequence[str]) -> str:
    """The page with its table replaced: recipes first, in their order, then parts by name."""
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    return "\n".join([head + BEGIN, *table(records, recipes), END + tail])


def table(records: Iterable[dict[str, Any]], recipes: Sequence[str]) -> list[str]:
    """One line for each pair of a subject and what it was held to, with the largest difference of each kind."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for record in records:
        largest = found.setdefault((record["subject"], record["against"]), {})
        for name, value in record["differences"].items():
            largest[name] = max(value, largest.get(name, 0.0))
    order = {name: index for index, name in enumerate(recipes)}
    lines = ["", "| subject | against | compared, and the largest difference seen |", "|---|---|---|"]
    for subject, against in sorted(found, key=lambda pair: (order.get(pair[0], len(order)), pair)):
        seen = ", ".join(f"{name.replace('_', ' ')} {_figure(v)}" for name, v in found[subject, against].items())
        lines.append(f"| {f'`{subject}`' if subject in order else subject} | {against} | {seen} |")
    return [*lines, ""]


def _figure(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}"

"""A spec as an indented tree, identical layers folded."""

from collections.abc import Iterator, Sequence
from typing import Any

from windtunnel.spec import Spec, fields

_SHOWN = 4


def spec_tree(spec: Spec) -> str:
    """One line a part: its path's last name, its kind and its plain fields. Parts of a part are indented under it."""
    return "\n".join(_lines("", spec, [spec], 0))


def _lines(name: str, spec: Spec, alike: Sequence[Spec], depth: int) -> Iterator[str]:
    """Lines of a part that stands for all in `alike`, which may differ in plain fields. What is None is left out."""
    plain = {key: [dict(fields(one))[key] for one in alike] for key, value in fields(spec) if not _is_part(value)}
    shown = [f"{key}={_values(values)}" for key, values in plain.items() if set(values) != {None}]
    yield "  " * depth + " ".join([name.ljust(9), spec.kind, *shown] if name else [spec.kind, *shown])
    for key, value in fields(spec):
        if isinstance(value, Spec):
            yield from _lines(key, value, [dict(fields(one))[key] for one in alike], depth + 1)
        elif _is_part(value):
            yield from _list_lines(key, value, depth + 1)


def _list_lines(name: str, items: Sequence[Spec], depth: int) -> Iterator[str]:
    """Equal items once, a repeating pattern once, items of one structure as one with their differing fields listed."""
    period = _period(items)
    if period is None or period == 1:
        yield from _lines(f"{name.ljust(9)} {len(items)} x", items[0], items, depth)
        return
    repeats, left = divmod(len(items), period)
    rest = f", then the first {left}" if left else ""
    yield f"{'  ' * depth}{name.ljust(9)} {repeats} x these {period} in turn{rest}"
    for item in items[:period]:
        yield from _lines("", item, [item], depth + 1)


def _period(items: Sequence[Spec]) -> int | None:
    """After how many items the list repeats; None where all have one structure but differ in plain fields."""
    exact = next(p for p in range(1, len(items) + 1) if all(a == b for a, b in zip(items, items[p:], strict=False)))
    if exact <= len(items) // 2 or len({_structure(item) for item in items}) > 1:
        return exact
    return None


def _structure(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.kind, tuple(_structure(item) for _, item in fields(value))
    if _is_part(value):
        return tuple(_structure(item) for item in value)
    return None


def _is_part(value: Any) -> bool:
    return isinstance(value, Spec) or (isinstance(value, tuple) and any(isinstance(item, Spec) for item in value))


def _values(values: Sequence[Any]) -> str:
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return _one(distinct[0])
    shown = [_one(value) for value in values]
    return ",".join(shown) if len(shown) <= _SHOWN else f"{shown[0]},{shown[1]},..,{shown[-1]}"


def _one(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

"""Specs: architectures as values. A spec is a small tree of frozen parts that can be saved, compared and hashed."""

import dataclasses
import difflib
import hashlib
import importlib
import json
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self, dataclass_transform

from windtunnel.errors import InputError
from windtunnel.version import VERSION

_PACKAGE = "windtunnel"
_NEWER = f" (this is Windtunnel {VERSION}; a file of a newer version may hold what it does not know)"
_kinds: dict[str, type["Spec"]] = {}
_hints: dict[type["Spec"], dict[str, Any]] = {}


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Spec:
    """Base of every spec. A subclass is a frozen, keyword-only dataclass without further ado.

    Fields are int, float, bool, str, None, specs, or tuples of these; values are coerced by annotation, so that
    `theta=500000` and `theta=500000.0` are one value with one fingerprint.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        foreign = cls.__module__.split(".")[0] != _PACKAGE
        cls.kind = f"{cls.__module__}.{cls.__qualname__}" if foreign else cls.__name__
        _kinds[cls.kind] = cls

    def __post_init__(self) -> None:
        for name, annotation in _annotations(type(self)).items():
            object.__setattr__(self, name, _coerce(getattr(self, name), annotation, f"{self.kind}.{name}"))
        self.validate()

    def validate(self) -> None:
        """Refuse impossible combinations of fields with an `InputError`."""

    def require(self, condition: bool, message: str) -> None:
        """Raise an `InputError` naming this kind unless `condition` holds."""
        if not condition:
            raise InputError(f"{self.kind}: {message}")

    def replace(self, **changes: Any) -> Self:
        """A copy with other field values."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def to_json(self) -> dict[str, Any]:
        """The full JSON form, default values included."""
        return {"kind": self.kind, **{name: _plain(value, full=True) for name, value in fields(self)}}

    def canonical(self) -> str:
        """The JSON text that is hashed: sorted keys, fields at their defaults left out."""
        return json.dumps(_plain(self, full=False), sort_keys=True, separators=(",", ":"))

    def fingerprint(self) -> str:
        """SHA-256 of the canonical form, in hexadecimal."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


def fields(spec: Spec) -> Iterator[tuple[str, Any]]:
    """Names and values of a spec's fields, in order of definition."""
    for field in dataclasses.fields(spec):  # type: ignore[arg-type]
        yield field.name, getattr(spec, field.name)


def from_json(data: Any, packages: Sequence[str] = (), path: str = "spec") -> Spec:
    """The spec that `to_json` wrote. Unknown kinds and fields raise an `InputError` with their path.

    A kind defined outside Windtunnel is imported only if its package is named in `packages`.
    """
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise InputError(f"{path}: expected an object with a 'kind', got {_short(data)}")
    cls = _find_kind(data["kind"], packages, path)
    known = _annotations(cls)
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name == "kind":
            continue
        if name not in known:
            raise InputError(f"{path}: {cls.kind} has no field {name!r}{nearest(name, known)}{_NEWER}")
        values[name] = _read(value, packages, f"{path}.{name}")
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in values and _required(f)]  # type: ignore[arg-type]
    if missing:
        raise InputError(f"{path}: {cls.kind} needs {', '.join(missing)}")
    return cls(**values)


def difference(left: Any, right: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Where two specs differ: (path, left value, right value), leaves only; a missing part is shown as None.

    Blocks that differ in the same way are reported once, under `blocks.*`.
    """
    return _merge_layers(list(_differences(left, right, path)))


def nearest(name: str, known: Any) -> str:
    """A hint for an unknown name: the close matches, else all that is known."""
    names = sorted(str(key) for key in known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(names)}"


def _differences(left: Any, right: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(left, Spec) and isinstance(right, Spec):
        if left.kind != right.kind:
            yield path or "kind", left.kind, right.kind
        ours, theirs = dict(fields(left)), dict(fields(right))
        same_kind = left.kind == right.kind
        for name in [*ours, *(n for n in theirs if n not in ours)]:
            if same_kind or (name in ours and name in theirs):
                yield from _differences(ours.get(name), theirs.get(name), f"{path}.{name}".lstrip("."))
            elif name in theirs and theirs[name] is not None:
                yield f"{path}.{name}", None, _plain(theirs[name], full=True)
            elif name in ours and ours[name] is not None:
                yield f"{path}.{name}", _plain(ours[name], full=True), None
    elif isinstance(left, tuple) and isinstance(right, tuple) and len(left) == len(right):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from _differences(one, other, f"{path}.{index}")
    elif left != right:
        yield path, _plain(left, full=True), _plain(right, full=True)


def _merge_layers(rows: list[tuple[str, Any, Any]]) -> list[tuple[str, Any, Any]]:
    merged: dict[str, tuple[list[Any], list[Any]]] = {}
    for path, left, right in rows:
        parts = path.split(".")
        if len(parts) > 1 and parts[0] == "blocks" and parts[1].isdigit():
            parts[1] = "*"
        lefts, rights = merged.setdefault(".".join(parts), ([], []))
        lefts.append(left)
        rights.append(right)
    return [(path, _one_of(lefts), _one_of(rights)) for path, (lefts, rights) in merged.items()]


def _one_of(values: list[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else values


def _find_kind(kind: str, packages: Sequence[str], path: str) -> type[Spec]:
    package = kind.split(".")[0]
    if "." in kind and kind not in _kinds:
        if package not in packages:
            raise InputError(
                f"{path}: kind {kind!r} comes from the package {package!r}, which is imported only when named: "
                f"--package {package}, or packages=[{package!r}]"
            )
        try:
            importlib.import_module(kind.rsplit(".", 1)[0])
        except ImportError as error:
            raise InputError(f"{path}: cannot import {kind!r}: {error}") from error
    if kind not in _kinds:
        raise InputError(f"{path}: unknown kind {kind!r}{nearest(kind, _kinds)}{_NEWER}")
    return _kinds[kind]


def _read(value: Any, packages: Sequence[str], path: str) -> Any:
    if isinstance(value, dict):
        return from_json(value, packages, path)
    if isinstance(value, list):
        return tuple(_read(item, packages, f"{path}.{index}") for index, item in enumerate(value))
    return value


def _plain(value: Any, *, full: bool) -> Any:
    if isinstance(value, Spec):
        defaults = {f.name: f.default for f in dataclasses.fields(value)}  # type: ignore[arg-type]
        kept = {name: item for name, item in fields(value) if full or item != defaults[name]}
        return {"kind": value.kind, **{name: _plain(item, full=full) for name, item in kept.items()}}
    if isinstance(value, tuple):
        return [_plain(item, full=full) for item in value]
    return value


def _required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _annotations(cls: type[Spec]) -> dict[str, Any]:
    if cls not in _hints:
        hints = typing.get_type_hints(cls)
        _hints[cls] = {field.name: hints[field.name] for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return _hints[cls]


def _coerce(value: Any, annotation: Any, path: str) -> Any:
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    for option in options:
        accepted, result = _coerce_one(value, option, path)
        if accepted:
            return result
    allowed = " or ".join(_spelled(option) for option in options)
    raise InputError(f"{path}: expected {allowed}, got {_short(value)}")


def _coerce_one(value: Any, option: Any, path: str) -> tuple[bool, Any]:
    if typing.get_origin(option) is tuple:
        if not isinstance(value, tuple | list):
            return False, None
        item = typing.get_args(option)[0]
        return True, tuple(_coerce(entry, item, f"{path}.{index}") for index, entry in enumerate(value))
    if typing.get_origin(option) is typing.Literal:
        return value in typing.get_args(option), value
    if option is float:
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        return number, float(value) if number else None
    if option is int:
        whole = (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
        return whole, int(value) if whole else None
    return isinstance(value, option), value


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _spelled(option: Any) -> str:
    if typing.get_origin(option) is typing.Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(option))
    return "None" if option is type(None) else getattr(option, "__name__", str(option))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

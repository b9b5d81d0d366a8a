"""Tensors in files, one at a time: safetensors whole or in shards, and torch's own files by a weights-only load."""

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from windtunnel.checkpoint import read_json
from windtunnel.errors import InputError
from windtunnel.interop.hashed import HashedFile

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_TORCH, _TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Form(NamedTuple):
    """A tensor without its numbers. dtype: None where it is not floating-point. file: where it lies, for messages."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    file: str


class Source:
    """Named tensors of which one is read at a time. pickled: whether they come from torch's files, not safetensors."""

    def __init__(self, forms: dict[str, Form], reader: Any, pickled: bool = False) -> None:
        self.forms, self._reader, self.pickled = forms, reader, pickled

    def read(self, name: str) -> Tensor:
        """One tensor, which may be a view of a mapped file."""
        try:
            found: Tensor = self._reader(name)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise InputError(f"{self.forms[name].file}: {name}: cannot be read: {error}") from error
        return found


def of_tensors(tensors: Mapping[str, Tensor], place: str, pickled: bool = False) -> Source:
    """Tensors that are in memory already, such as a state dict."""
    forms = {name: Form(tuple(each.shape), _floating(each.dtype), place) for name, each in tensors.items()}
    return Source(forms, tensors.__getitem__, pickled)


def _floating(dtype: torch.dtype) -> torch.dtype | None:
    return dtype if dtype in _NAMES else None


@contextmanager
def open_folder(folder: Path) -> Iterator[Source]:
    """The tensors of a Hugging Face folder. Raises `InputError` naming the file that is missing or damaged."""
    with ExitStack() as stack:
        if (folder / INDEX).is_file():
            yield _open_files(_shards(folder, INDEX), stack)
        elif (folder / WHOLE).is_file():
            yield _open_files({folder / WHOLE: []}, stack)
        elif (folder / _TORCH_INDEX).is_file():
            yield _load_files(list(_shards(folder, _TORCH_INDEX)))
        elif (folder / _TORCH).is_file():
            yield _load_files([folder / _TORCH])
        else:
            raise InputError(f"{folder}: holds no weights: neither {WHOLE} nor {INDEX}, nor {_TORCH}")


@contextmanager
def open_file(path: Path) -> Iterator[Source]:
    """The tensors of one safetensors file."""
    with ExitStack() as stack:
        yield _open_files({path: []}, stack)


def _shards(folder: Path, index: str) -> dict[Path, list[str]]:
    """The files that an index names, and the tensors that it says are in each."""
    places = read_json(folder / index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{folder / index}: has no 'weight_map' from tensors to files")
    found: dict[Path, list[str]] = {}
    for name, file in places.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise InputError(f"{folder / index}: {name} is said to lie in {file!r}, which is no file of this folder")
        found.setdefault(folder / file, []).append(name)
    for path, names in found.items():
        if not path.is_file():
            raise InputError(f"{path}: missing; {index} says that it holds {names[0]} and {len(names) - 1} more")
    return found


def _open_files(files: Mapping[Path, list[str]], stack: ExitStack) -> Source:
    forms: dict[str, Form] = {}
    opened: dict[str, Any] = {}
    for path, promised in files.items():
        try:
            file: Any = stack.enter_context(_as_context(safe_open(path, framework="pt")))
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: truncated or damaged: {error}") from error
        for name in file.keys():  # noqa: SIM118 - no mapping
            if name in forms:
                raise InputError(f"{path}: {name} is in {forms[name].file} too")
            part = file.get_slice(name)
            forms[name], opened[name] = Form(tuple(part.get_shape()), DTYPES.get(part.get_dtype()), str(path)), file
        absent = [name for name in promised if name not in forms]
        if absent:
            raise InputError(f"{path}: {absent[0]} is missing; {INDEX} says that it is there")
    return Source(forms, lambda name: opened[name].get_tensor(name))


def _as_context(opened: Any) -> AbstractContextManager[Any]:
    context: AbstractContextManager[Any] = opened
    return context


def _load_files(files: list[Path]) -> Source:
    found: dict[str, Tensor] = {}
    forms: dict[str, Form] = {}
    for path in files:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises many kinds, for files of its older format too
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"{path}: is not read: a load of weights alone fails: {first}") from error
        if not isinstance(loaded, dict) or not all(isinstance(each, Tensor) for each in loaded.values()):
            raise InputError(f"{path}: is not read: it holds something else than named tensors")
        found.update(loaded)
        forms.update(of_tensors(loaded, str(path)).forms)
    return Source(forms, found.__getitem__, pickled=True)


def write_tensors(path: Path, forms: Mapping[str, Form], tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
    """A safetensors file whose tensors come one by one, in the order of `forms`; returns its size and hash."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, form in forms.items():
        start, end = end, end + size_of(form)
        header[name] = {"dtype": _NAMES[dtype_of(form)], "shape": list(form.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with HashedFile(path) as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for (name, tensor), (promised, form) in zip(tensors, forms.items(), strict=True):
            assert (name, tuple(tensor.shape), tensor.dtype) == (promised, form.shape, form.dtype)
            file.write(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return file.described


def size_of(form: Form) -> int:
    """Bytes."""
    return torch.Size(form.shape).numel() * dtype_of(form).itemsize


def dtype_of(form: Form) -> torch.dtype:
    """Of a tensor that is floating-point."""
    assert form.dtype is not None
    return form.dtype


def converted(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """A tensor in a dtype, the same one where it has it; raises `InputError` where a number is too large for it."""
    found = tensor.to(dtype)
    if found is not tensor and torch.finfo(dtype).max < torch.finfo(tensor.dtype).max and not finite(found):
        largest = torch.finfo(dtype).max
        raise InputError(
            f"{name} holds numbers beyond {largest:g}, the largest of {_words(dtype)}; choose another dtype"
        )
    return found


def _words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def finite(tensor: Tensor) -> bool:
    """Whether all numbers are; in one pass, without a mask of the tensor's size."""
    if tensor.numel() == 0:
        return True
    return all(math.isfinite(each.item()) for each in torch.aminmax(tensor))

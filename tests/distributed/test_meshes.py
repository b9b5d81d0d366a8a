"""Meshes as values, and parts of tensors in files."""

from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.distributed.files import read_parts, write_parts
from windtunnel.distributed.mesh import Mesh
from windtunnel.distributed.places import Place, share
from windtunnel.distributed.start import team
from windtunnel.distributed.team import ALONE, Team
from windtunnel.errors import InputError


def test_a_mesh_is_read_and_takes_what_is_left() -> None:
    assert Mesh.parse("replicate=2").over(8) == Mesh(replicate=2, shard=4)
    assert Mesh.parse("").over(3) == Mesh(shard=3)
    assert Mesh.parse("replicate=2, tensor=3").over(12).sizes == (2, 2, 1, 1, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shards=2", "no axis 'shards'.*shard"),
        ("shard=0", "whole number of at least 1"),
        ("shard=two", "whole number of at least 1"),
        ("shard=2,shard=2", "given twice"),
    ],
)
def test_a_mesh_that_cannot_be_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Mesh.parse(text)


@pytest.mark.parametrize(("text", "devices"), [("shard=3", 4), ("replicate=3", 4), ("replicate=2,shard=1", 4)])
def test_a_mesh_that_does_not_divide_the_devices_is_refused(text: str, devices: int) -> None:
    with pytest.raises(InputError, match=f"does not divide {devices} devices"):
        Mesh.parse(text).over(devices)


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with team() as members:
        assert members is ALONE
    assert ALONE.lead
    assert ALONE.rows(5) == range(5)
    with pytest.raises(InputError, match="does not divide 1 device;"), team(Mesh(shard=2)):
        pass


@given(
    replicate=st.integers(1, 2),
    shard=st.integers(1, 3),
    expert=st.integers(1, 2),
    context=st.integers(1, 3),
    tensor=st.integers(1, 2),
    each=st.integers(1, 3),
)
def test_tokens_go_to_those_that_read(
    replicate: int, shard: int, expert: int, context: int, tensor: int, each: int
) -> None:
    """Each token of each row to one process, or to the neighbours that hold parts of the same blocks."""
    mesh = Mesh(replicate=replicate, shard=shard, expert=expert, context=context, tensor=tensor)
    size = replicate * shard * expert * context * tensor
    members = [Team(mesh, rank, ("",) * size) for rank in range(size)]
    rows, length = each * mesh.readers, 2 * context
    for first in range(tensor):
        read = [
            (row, token) for one in members[first::tensor] for row in one.rows(rows) for token in one.columns(length)
        ]
        assert sorted(read) == [(row, token) for row in range(rows) for token in range(length)]


@given(size=st.integers(1, 40), parts=st.integers(1, 9))
def test_shares_are_those_of_chunk(size: int, parts: int) -> None:
    chunks = [len(chunk) for chunk in torch.arange(size).chunk(parts)]
    shares = [share(size, parts, index) for index in range(parts)]
    assert [length for _, length in shares if length] == chunks
    assert [start for start, length in shares if length] == [sum(chunks[:index]) for index in range(len(chunks))]


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 5)),
    written=st.tuples(st.integers(1, 4), st.integers(1, 2)),
    wanted=st.tuples(st.integers(1, 4), st.integers(1, 3)),
)
def test_any_cut_is_read_from_any_other(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    written: tuple[int, int],
    wanted: tuple[int, int],
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    whole = {"a": torch.randn(shape), "a/exp_avg": torch.randn(shape), "a/step": torch.tensor(7.0)}
    paths = [_write(folder, whole, place, index) for index, place in enumerate(_cut(shape, written))]
    assert all(torch.equal(value, whole[name]) for name, value in read_parts(paths, {}).items())
    for place in _cut(shape, wanted):
        found = read_parts(paths, {"a": place})
        assert torch.equal(found["a"], whole["a"][place.slices])
        assert torch.equal(found["a/exp_avg"], whole["a/exp_avg"][place.slices])
        assert found["a/step"] == 7


def test_a_part_that_is_nowhere_is_missed(tmp_path: Path) -> None:
    whole = {"a": torch.randn(4, 2)}
    paths = [_write(tmp_path, whole, place, index) for index, place in enumerate(_cut((4, 2), (4, 1)))]
    with pytest.raises(InputError, match="parts of a are missing"):
        read_parts(paths[:2] + paths[3:], {})


def _cut(shape: tuple[int, int], parts: tuple[int, int]) -> list[Place]:
    cuts = [[share(size, count, index) for index in range(count)] for size, count in zip(shape, parts, strict=True)]
    return [Place(shape, tuple(at for at, _ in box), tuple(long for _, long in box)) for box in product(*cuts)]


def _write(folder: Path, whole: dict[str, torch.Tensor], place: Place, index: int) -> Path:
    path = folder / f"{index}.safetensors"
    parts = {name: value if value.dim() == 0 else value[place.slices] for name, value in whole.items()}
    write_parts(path, parts, {"a": place}, lead=index == 0)
    return path

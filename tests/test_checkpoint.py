"""Checkpoints are whole or not there; damage is named; nothing in them is executed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import windtunnel.checkpoint
from windtunnel import recipes
from windtunnel.checkpoint import checkpoints, fill_model, load, model_tensors, read_json, recover, save, write_json
from windtunnel.errors import InputError, WorkError

TENSORS = {
    "model": {"a.weight": torch.arange(6, dtype=torch.float32).view(2, 3), "b": torch.tensor([], dtype=torch.float32)},
    "optimiser": {"a.weight/step": torch.tensor(3.0), "a.weight/exp_avg": torch.full((2, 3), torch.nan)},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "step-3", TENSORS, {"step": 3, "name": "föhn"})
    return tmp_path / "step-3"


def test_what_is_saved_comes_back(folder: Path) -> None:
    checkpoint = load(folder)
    assert checkpoint.record == {"step": 3, "name": "föhn"}
    for group, tensors in TENSORS.items():
        assert checkpoint.tensors[group].keys() == tensors.keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(checkpoint.tensors[group][name], tensor, rtol=0, atol=0, equal_nan=True)
    assert load(folder, ("model",)).tensors.keys() == {"model"}
    with pytest.raises(InputError, match="holds no ema state"):
        load(folder, ("model", "ema"))


def test_transposed_views_are_stored_as_they_read(tmp_path: Path) -> None:
    save(tmp_path / "c", {"model": {"w": TENSORS["model"]["a.weight"].T}}, {})
    assert torch.equal(load(tmp_path / "c").tensors["model"]["w"], TENSORS["model"]["a.weight"].T)


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "checkpoint.json"])
def test_missing_files_are_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        load(folder)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("c") / "step"
    save(folder, TENSORS, {"step": 3})
    path = data.draw(st.sampled_from(sorted(folder.glob("*.safetensors"))))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path.name}: damaged"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"format": 99, "files": {}, "record": {}}'])
def test_a_damaged_index_is_named(folder: Path, content: bytes) -> None:
    (folder / "checkpoint.json").write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint\.json"):
        load(folder)


def test_a_failed_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(windtunnel.checkpoint, "sync", full)
    with pytest.raises(WorkError, match="no space left on the disk"):
        save(folder.with_name("step-4"), TENSORS, {})
    with pytest.raises(WorkError, match="no space left on the disk"):
        write_json(folder.parent / "result.json", {})
    assert [path.name for path in folder.parent.iterdir()] == ["step-3"]


def test_half_written_checkpoints_are_not_seen(folder: Path) -> None:
    root = folder.parent
    folder.rename(root / ".partial-step-3")
    assert checkpoints(root) == []
    recover(root)
    assert list(root.iterdir()) == []


def test_a_kill_while_replacing_loses_nothing(folder: Path) -> None:
    root = folder.parent
    folder.rename(root / ".replaced-step-3")
    recover(root)
    assert checkpoints(root) == [folder]
    save(folder, TENSORS, {"step": 5})
    assert load(folder).record == {"step": 5}
    assert [path.name for path in root.iterdir()] == ["step-3"]


def test_json_is_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert read_json(path) == {"loss": 1.0}
    assert json.loads(path.read_text()) == {"loss": 1.0}


def test_tied_tables_are_stored_once(tmp_path: Path) -> None:
    spec = recipes.get("palm")(layers=1, width=16, heads=2, vocab=64, context=8)
    model = spec.build().initialize(0)
    tensors = model_tensors(model)
    assert tensors.keys() == dict(model.named_parameters()).keys()
    save(tmp_path / "c", {"model": tensors}, {})
    other = spec.build().initialize(1)
    fill_model(other, load(tmp_path / "c").tensors["model"], "c")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model_tensors(other).items())


def test_other_models_weights_are_refused() -> None:
    small, large = (
        recipes.get("llama")(layers=1, width=width, heads=2, vocab=64, context=8).build() for width in (16, 32)
    )
    deep = recipes.get("llama")(layers=2, width=16, heads=2, vocab=64, context=8).build()
    with pytest.raises(InputError, match=r"here: .*is \(64, 16\) float32, the model's is \(64, 32\) float32"):
        fill_model(large, model_tensors(small), "here")
    with pytest.raises(InputError, match=r"here: .*differ in blocks\.1\."):
        fill_model(deep, model_tensors(small), "here")

"""What is wrong with a folder is said in one line that names file and tensor, and nothing half-written is left."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from windtunnel.errors import InputError
from windtunnel.interop.exporting import export_run
from windtunnel.interop.hub import local_folder
from windtunnel.interop.importing import import_folder

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2)
    LlamaForCausalLM(config).save_pretrained(place)
    return place


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "llama"))


def refused(folder: Path, words: str) -> None:
    out = folder.with_name("run")
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(InputError, match=words) as caught:
        import_folder(folder, out)
    assert "\n" not in str(caught.value)
    assert sorted(folder.parent.rglob("*")) == before


def configured(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def weighted(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return changed


def truncated(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-40])


def truncated_shard(folder: Path) -> None:
    sharded(folder)
    path = folder / "part-1.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def overlong_header(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"\xff" * 8 + b"{}")


def padded_tokenizer(folder: Path) -> None:
    vocabulary = {f"t{index}": index for index in range(21)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "t0")).save(str(folder / "tokenizer.json"))


def sharded(folder: Path, missing: str | None = None) -> None:
    tensors = load_file(folder / WEIGHTS)
    places = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({name: each for name, each in tensors.items() if places[name] == file}, folder / file)
    places |= {"model.norm.bias": "part-0.safetensors"} if missing == "tensor" else {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / WEIGHTS).unlink()
    if missing == "file":
        (folder / "part-1.safetensors").unlink()


Q = "model.layers.1.self_attn.q_proj.weight"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown attribute": (
        configured(attention_sinks=4, transformers_version="7.1.0"),
        r"config\.json: attention_sinks = 4 is not understood \(written by transformers 7\.1\.0\)",
    ),
    "unknown family": (configured(model_type="lama"), r"config\.json: model_type 'lama' is not carried.*llama"),
    "no family": (configured(model_type=None), r"config\.json: model_type None is not carried"),
    "quantised": (configured(quantization_config={"bits": 4}), r"config\.json: quantization_config.*is not carried"),
    "activation": (configured(hidden_act="xielu"), r"config\.json: hidden_act is 'xielu'; carried are silu"),
    "words for numbers": (configured(hidden_size="8"), r"hidden_size must be a whole number from 1, got '8'"),
    "a truth for a number": (configured(num_hidden_layers=True), r"num_hidden_layers must be a whole number"),
    "groups": (configured(num_key_value_heads=3), r"config\.json: Attention: kv_heads 3 does not divide heads 2"),
    "unknown scaling": (
        configured(rope_parameters={"rope_type": "longrope", "rope_theta": 1.0}),
        r"config\.json: rope_scaling of type 'longrope' is not carried",
    ),
    "unknown field of a scaling": (
        configured(rope_parameters={"rope_type": "yarn", "factor": 2.0, "mscale": 0.7}),
        r"rope_scaling of type 'yarn' has mscale = 0\.7",
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), r"config\.json: not found"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), r"llama: holds no weights: neither model\.safetensors"),
    "missing": (weighted(lambda tensors: tensors.pop(Q)), rf"model\.safetensors: {Q} is missing"),
    "left over": (
        weighted(lambda tensors: tensors.update({"model.extra": torch.ones(2)})),
        r"model\.safetensors: model\.extra has no place",
    ),
    "shape": (
        weighted(lambda tensors: tensors.update({Q: torch.ones(8, 9)})),
        rf"model\.safetensors: {Q} is \[8, 9\]; config\.json makes it \[8, 8\]",
    ),
    "not a number": (
        weighted(lambda tensors: tensors[Q].fill_(float("nan"))),
        rf"model\.safetensors: {Q} holds numbers that are not finite",
    ),
    "infinite": (weighted(lambda tensors: tensors[Q][3].fill_(float("inf"))), rf"{Q} holds numbers that are not"),
    "integers": (
        weighted(lambda tensors: tensors.update({Q: torch.ones(8, 8, dtype=torch.int8)})),
        rf"model\.safetensors: {Q} is no floating-point tensor; quantised weights",
    ),
    "truncated": (truncated, r"model\.safetensors: truncated or damaged"),
    "truncated shard": (truncated_shard, r"part-1\.safetensors: truncated or damaged"),
    "no header": (overlong_header, r"model\.safetensors: truncated or damaged"),
    "missing shard": (
        lambda folder: sharded(folder, "file"),
        r"part-1\.safetensors: missing; model\.safetensors\.index\.json says that it holds .* and \d+ more",
    ),
    "missing in a shard": (
        lambda folder: sharded(folder, "tensor"),
        r"part-0\.safetensors: model\.norm\.bias is missing",
    ),
    "shards elsewhere": (
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}'),
        r"a is said to lie in '\.\./b', which is no file of this folder",
    ),
    "tokenizer too large": (padded_tokenizer, r"tokenizer\.json: has 22 tokens, but vocab_size.*is 20"),
    "no tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        r"tokenizer\.json is not a tokenizer\.json",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders(case: str, folder: Path) -> None:
    change, words = BROKEN[case]
    change(folder)
    refused(folder, words)


def test_shards_are_read_as_one(folder: Path, tmp_path: Path) -> None:
    import_folder(folder, tmp_path / "one")
    sharded(folder)
    import_folder(folder, tmp_path / "two")
    weights = "checkpoints/imported/model.safetensors"
    assert (tmp_path / "one" / weights).read_bytes() == (tmp_path / "two" / weights).read_bytes()


def test_an_attribute_can_be_called_meaningless(folder: Path, tmp_path: Path) -> None:
    configured(unsloth_version="2026.1")(folder)
    refused(folder, "unsloth_version")
    import_folder(folder, tmp_path / "run", ignore=["unsloth_version"])


def test_folders_in_use_are_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("mine")
    for work in (import_folder, export_run):
        with pytest.raises(InputError, match="already there"):
            work(folder, tmp_path / "run")
    assert (tmp_path / "run" / "mine").read_text() == "mine"


def test_an_export_of_what_is_no_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        export_run(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_weights_of_a_run_are_not_exported(folder: Path, tmp_path: Path) -> None:
    import_folder(folder, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "imported" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(InputError, match="size or hash"):
        export_run(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "words"), [("./nowhere", "no such folder"), ("a/b/c", "no such folder")])
def test_places_that_are_not_there(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        local_folder(name)


def test_a_hub_name_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: object, **options: object) -> None:
        raise ConnectionError("no route to host\nand a traceback")

    monkeypatch.setattr("huggingface_hub.list_repo_files", unreachable)
    with pytest.raises(InputError, match=r"somebody/model: no such folder, and not to be had .* no route to host") as e:
        local_folder("somebody/model")
    assert "\n" not in str(e.value)

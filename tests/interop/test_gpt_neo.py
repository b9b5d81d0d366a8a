"""GPT-Neo checkpoints, in and out, and what their older files hold."""

from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import GPTNeoConfig, GPTNeoForCausalLM

import windtunnel as wt
from tests.interop.pairs import carried
from tests.proof import Proof
from windtunnel.errors import InputError
from windtunnel.interop.exporting import choose, export_run
from windtunnel.interop.importing import import_folder


def neo(layers: int = 2, **changes: Any) -> GPTNeoForCausalLM:
    """A small one; the kinds are cut off at the last layer."""
    kinds = changes.pop("kinds", ["global", "local"])
    settings = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_heads": 4,
        "max_position_embeddings": 40,
        "window_size": 7,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "attn_implementation": "eager",  # the only path that keeps the bands
        **changes,
    }
    types = [[list(islice(cycle(kinds), layers)), 1]]
    return GPTNeoForCausalLM(GPTNeoConfig(num_layers=layers, attention_types=types, **settings)).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    neo().save_pretrained(tmp_path / "neo")
    return tmp_path / "neo"


def test_gpt_neo(proof: Proof) -> None:
    proof("import and export of gpt_neo", "transformers `GPTNeoForCausalLM`, float32", **carried(neo()))


@settings(max_examples=5)
@given(
    st.lists(st.sampled_from(["global", "local"]), min_size=1, max_size=3),
    st.integers(1, 3),
    st.sampled_from([1, 2, 24, 300]),
    st.booleans(),
    st.sampled_from([None, 37]),
    st.sampled_from(["gelu_new", "gelu", "relu"]),
)
def test_odd_ones(kinds: list[str], layers: int, window: int, tied: bool, hidden: int | None, activation: str) -> None:
    carried(
        neo(
            layers,
            kinds=kinds,
            window_size=window,
            tie_word_embeddings=tied,
            intermediate_size=hidden,
            activation_function=activation,
            hidden_size=24,
        )
    )


def test_the_spec_is_the_recipes() -> None:
    """So that an imported model and a trained one are compared as one architecture."""
    recipe = wt.recipes.get("gpt_neo")(size="125m")
    family, attributes, _ = choose(recipe)
    assert family.name == "gpt_neo"
    assert attributes["attention_types"] == [[["global", "local"], 6]]
    assert GPTNeoConfig(**attributes).num_layers == 12


def test_masks_and_a_tied_head_in_older_files_are_passed_over(saved: Path, tmp_path: Path) -> None:
    """And names without the prefix of the whole model."""
    tensors = load_file(saved / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    old["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    for layer in range(2):
        old[f"h.{layer}.attn.attention.bias"] = torch.ones(1, 1, 40, 40).tril()
        old[f"h.{layer}.attn.attention.masked_bias"] = torch.tensor(-1e9)
    import_folder(saved, tmp_path / "new")
    save_file(old, saved / "model.safetensors", metadata={"format": "pt"})
    import_folder(saved, tmp_path / "old")
    one, other = (wt.load(tmp_path / name).model.state_dict() for name in ("new", "old"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_tied_head_with_other_numbers_is_refused(saved: Path, tmp_path: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    save_file({**tensors, "lm_head.weight": torch.randn(50, 32)}, saved / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: lm_head\.weight has no place"):
        import_folder(saved, tmp_path / "run")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_stay_in_their_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    model = neo().to(dtype)
    model.save_pretrained(tmp_path / "neo")
    import_folder(tmp_path / "neo", tmp_path / "run")
    run = wt.load(tmp_path / "run")
    assert {parameter.dtype for parameter in run.model.parameters()} == {dtype}
    export_run(tmp_path / "run", tmp_path / "out")
    there = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in there.items())
    export_run(tmp_path / "run", tmp_path / "wide", dtype=torch.float32)
    wide = load_file(tmp_path / "wide" / "model.safetensors")
    assert all(torch.equal(tensor, there[name].float()) for name, tensor in wide.items())


def test_weights_are_converted_where_that_is_asked(saved: Path, tmp_path: Path) -> None:
    record = import_folder(saved, tmp_path / "run", dtype=torch.bfloat16)
    assert record["imported"]["dtype"] == "bfloat16"
    theirs = load_file(saved / "model.safetensors")
    export_run(tmp_path / "run", tmp_path / "out")
    assert all(
        torch.equal(tensor, theirs[name].bfloat16())
        for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items()
    )
    import_folder(saved, tmp_path / "wide")
    export_run(tmp_path / "wide", tmp_path / "half", dtype=torch.float16)
    theirs["transformer.wte.weight"][3, 4] = 1e5
    save_file(theirs, saved / "model.safetensors")
    words = r"{} holds numbers beyond 65504, the largest of float16; choose another dtype"
    with pytest.raises(InputError, match=words.format(r"embedding\.weight")):
        import_folder(saved, tmp_path / "again", dtype=torch.float16)
    import_folder(saved, tmp_path / "again")
    with pytest.raises(InputError, match=words.format(r"transformer\.wte\.weight")):
        export_run(tmp_path / "again", tmp_path / "narrow", dtype=torch.float16)
    assert not (tmp_path / "narrow").exists()


def test_a_torch_file_is_read_by_a_load_of_weights_alone(saved: Path, tmp_path: Path) -> None:
    import_folder(saved, tmp_path / "safe")
    tensors = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    torch.save(tensors, saved / "pytorch_model.bin")
    record = import_folder(saved, tmp_path / "torch")
    assert record["imported"]["pickled"]
    weights = "checkpoints/imported/model.safetensors"
    assert (tmp_path / "safe" / weights).read_bytes() == (tmp_path / "torch" / weights).read_bytes()


def test_a_torch_file_that_runs_code_is_refused(saved: Path, tmp_path: Path) -> None:
    (saved / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": _Trap()}, saved / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin: is not read: a load of weights alone fails"):
        import_folder(saved, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert not _Trap.sprung


class _Trap:
    sprung = False

    def __reduce__(self) -> Any:
        return _spring, ()


def _spring() -> None:
    _Trap.sprung = True

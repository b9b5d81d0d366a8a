"""What no class of transformers computes loads there as ours, and generates the same with a cache as without."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import windtunnel as wt
import windtunnel.interop.auto
from tests.interop.pairs import TOLERANCE, assert_same_again, disturbed, near
from tests.recipes.cases import spec_of
from windtunnel.checkpoint import model_tensors, save, write_json
from windtunnel.data.tokenizers import ByteTokenizer
from windtunnel.errors import InputError
from windtunnel.interop.config import Config
from windtunnel.interop.exporting import choose, export_run
from windtunnel.interop.families import FAMILIES
from windtunnel.interop.importing import CHECKPOINT
from windtunnel.positions import Rope
from windtunnel.recipes import names
from windtunnel.spec import Spec, fields

# Recipes that a class of transformers computes as they come; what is not here is written as our own.
NATIVE = {
    "llama": "llama",
    "gpt_neo": "gpt_neo",
    "gpt_j": "gptj",
    "mpt_alibi": "mpt",
    "mamba": "mamba",
    "mixtral": "mixtral",
}


def run_of(spec: Any, folder: Path) -> Any:
    """A run folder as an import leaves it, with the byte tokenizer."""
    model = disturbed(wt.build(spec))
    save(folder / "checkpoints" / CHECKPOINT, {"model": model_tensors(model)}, {"final": True})
    write_json(folder / "spec.json", spec.to_json())
    write_json(folder / "run.json", {"identity": {"spec": {"fingerprint": spec.fingerprint()}}})
    if spec.vocab >= 257:
        ByteTokenizer().save(folder / "tokenizer")
    return model


@pytest.mark.parametrize("recipe", [name for name in names() if name != "axial_image"])
def test_families_of_recipes(recipe: str) -> None:
    family, attributes, reasons = choose(spec_of(recipe))
    assert family.name == NATIVE.get(recipe, "windtunnel")
    assert json.loads(json.dumps(attributes)) == attributes
    assert len(reasons) == list(FAMILIES).index(family.name)


def test_griffin_is_recurrent_gemma_where_it_is_scaled_and_bounded() -> None:
    own = {"gate_blocks": 4, "heads": 4, "window": 7, "soft_cap": 30.0}
    assert choose(spec_of("griffin", scaled=True, **own))[0].name == "recurrent_gemma"
    with pytest.raises(InputError, match=r"recurrent_gemma cannot say this model: embedding\.scale is 1\.0"):
        choose(spec_of("griffin", **own), "recurrent_gemma")


def test_the_reason_names_path_and_values() -> None:
    with pytest.raises(InputError, match=r"llama cannot say this model: blocks\.0\.mixer is DiffAttention"):
        choose(spec_of("diff_transformer"), "llama")
    with pytest.raises(InputError, match="--family: model_type 'lama' is not carried; did you mean llama"):
        choose(spec_of("llama"), "lama")


@pytest.mark.parametrize("recipe", ["palm", "ngpt", "griffin", "diff_transformer", "gpt3"])
@torch.no_grad()
def test_generation_with_a_cache(recipe: str, tmp_path: Path) -> None:
    spec = spec_of(recipe, vocab=260)
    ours = run_of(spec, tmp_path / "run")
    export = export_run(tmp_path / "run", tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert isinstance(theirs, windtunnel.interop.auto.WindtunnelForCausalLM)
    tokens = torch.randint(257, (2, 9))
    assert near(theirs(tokens).logits, ours(tokens).logits) <= TOLERANCE
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    cached = theirs.generate(tokens, use_cache=True, **settings)
    assert torch.equal(cached, theirs.generate(tokens, use_cache=False, **settings))
    greedy = ours(cached[:, :-1]).logits[:, 8:].argmax(-1)
    assert torch.equal(cached[:, 9:], greedy)
    beams = {**settings, "num_beams": 3}
    assert torch.equal(theirs.generate(tokens, **beams), theirs.generate(tokens, use_cache=False, **beams))
    assert_same_weights_again(tmp_path, export)


def assert_same_weights_again(place: Path, export: Any) -> None:
    assert_same_again(place / "run", export)
    tokenizer = AutoTokenizer.from_pretrained(export.folder)
    text = "naïve 한국\n\t end"
    assert tokenizer(text)["input_ids"] == ByteTokenizer().encode(text).tolist()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token_id == 256
    assert AutoConfig.from_pretrained(export.folder).eos_token_id == 256


@torch.no_grad()
def test_labels_and_padding(tmp_path: Path) -> None:
    spec = spec_of("palm", vocab=260)
    ours = run_of(spec, tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokens = torch.randint(257, (2, 9))
    expected = ours.loss(tokens[:, :-1], tokens[:, 1:]).cross_entropy
    torch.testing.assert_close(theirs(tokens, labels=tokens).loss, expected)
    mask = torch.ones_like(tokens)
    mask[0, :2] = 0
    with pytest.raises(InputError, match="attention_mask: rows must begin with their text"):
        theirs(tokens, attention_mask=mask)


def other_layouts() -> dict[str, Any]:
    """Specs whose rotated pairs lie otherwise than those of the class that computes them."""
    config = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 40, "num_hidden_layers": 2}
    neox = FAMILIES["gpt_neox"].read(Config({**config, "vocab_size": 41, "max_position_embeddings": 64}, ""))
    own: dict[str, Any] = {"vocab": 41}
    specs = {
        "llama": spec_of("llama", **own, kv_heads=2),
        "gptj": spec_of("gpt_j", **own),
        "gpt_neox": neox,
        "recurrent_gemma": spec_of("griffin", **own, scaled=True, soft_cap=30.0, heads=4, gate_blocks=4, window=7),
        "diffllama": spec_of("diff_transformer", **own, gain=False, eps=1e-5, kv_heads=1),
    }
    return {name: turned_over(spec) for name, spec in specs.items()}


def turned_over(value: Any) -> Any:
    """The value with every layout changed."""
    if isinstance(value, Rope):
        return value.replace(layout="half" if value.layout == "interleaved" else "interleaved")
    if isinstance(value, tuple):
        return tuple(map(turned_over, value))
    return value.replace(**{n: turned_over(v) for n, v in fields(value)}) if isinstance(value, Spec) else value


@pytest.mark.parametrize("family", other_layouts())
@torch.no_grad()
def test_a_layout_of_pairs_is_an_order_of_rows(family: str, tmp_path: Path) -> None:
    spec = other_layouts()[family]
    ours = run_of(spec, tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "out", family)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokens = torch.randint(41, (2, 20))
    assert near(theirs(tokens).logits, ours(tokens).logits) <= TOLERANCE


def test_the_card_says_what_the_run_is(tmp_path: Path) -> None:
    spec = spec_of("ngpt")
    run_of(spec, tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "import windtunnel.interop.auto" in card
    assert spec.fingerprint() in card
    assert f"{sum(p.numel() for p in spec.build().parameters()):,}" in card

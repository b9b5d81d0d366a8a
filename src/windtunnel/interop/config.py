"""A `config.json` read strictly: what is not understood is refused by name, unless the function cannot depend on it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from windtunnel.errors import InputError

# What only training, generation, downstream heads or bookkeeping read. Runs keep them; an export carries them on.
_KEPT = """
bos_token_id decoder_start_token_id eos_token_id pad_token_id sep_token_id unk_token_id prefix
attention_dropout attention_probs_dropout_prob attn_dropout attn_pdrop classifier_dropout embd_pdrop emb_pdrop
embed_dropout hidden_dropout resid_dropout resid_pdrop initializer_factor initializer_range init_device
attn_implementation _attn_implementation _attn_implementation_autoset gradient_checkpointing pretraining_tp
begin_suppress_tokens bad_words_ids diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length min_length
no_repeat_ngram_size num_beam_groups num_beams num_return_sequences remove_invalid_values repetition_penalty
suppress_tokens temperature top_k top_p typical_p use_cache
is_decoder id2label label2id num_labels problem_type finetuning_task
output_attentions output_hidden_states output_router_logits output_scores return_dict return_dict_in_generate
summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
task_specific_params tf_legacy_loss tokenizer_class torchscript use_bfloat16
"""
_REWRITTEN = """
architectures auto_map dtype model_type name_or_path _name_or_path torch_dtype transformers_version windtunnel_version
"""
# What no causal model of these families has switched on.
_UNUSED = """
add_cross_attention chunk_size_feed_forward cross_attention_hidden_size is_encoder_decoder pruned_heads
quantization_config tie_encoder_decoder
"""
KEPT, REWRITTEN, OFF = (frozenset(names.split()) for names in (_KEPT, _REWRITTEN, _UNUSED))
_REQUIRED = object()
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "gelu_sigmoid",
    "relu": "relu",
}
THEIR_ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "gelu_sigmoid": "quick_gelu",
    "relu": "relu",
}


class Config:
    """The attributes of a model, each to be asked for; `finish` refuses those that nobody asked for.

    place: the file, for messages. ignore: attributes that the user says do not matter.
    """

    def __init__(self, values: Mapping[str, Any], place: str, ignore: Sequence[str] = ()) -> None:
        self.values, self.place, self.ignore = dict(values), place, frozenset(ignore)
        self._known: set[str] = set()

    def whole(self, name: str, default: Any = _REQUIRED) -> int:
        """A whole number, at least 1."""
        return int(self._checked(name, default, lambda v: isinstance(v, int) and v > 0, "a whole number from 1"))

    def maybe_whole(self, name: str) -> int | None:
        """A whole number, at least 1, or nothing."""
        return None if self.any(name) is None else self.whole(name)

    def number(self, name: str, default: Any = _REQUIRED) -> float:
        """A finite number."""
        return float(self._checked(name, default, _is_number, "a number"))

    def flag(self, name: str, default: Any = _REQUIRED) -> bool:
        """True or false."""
        return bool(self._checked(name, default, lambda v: isinstance(v, bool), "true or false"))

    def choice(self, name: str, options: Mapping[str, str], default: Any = _REQUIRED) -> str:
        """One of the keys of `options`; gives what it stands for."""
        value = self._checked(name, default, lambda v: isinstance(v, str), "a name")
        if value not in options:
            raise self.refusal(name, f"is {value!r}; carried are {', '.join(options)}")
        return options[value]

    def activation(self, name: str, default: str) -> Any:
        """The activation of an MLP under our name."""
        return self.choice(name, ACTIVATIONS, default)

    def any(self, name: str, default: Any = None) -> Any:
        """Whatever is there; the default where it is absent or null."""
        self._known.add(name)
        value = self.values.get(name)
        return default if value is None else value

    def only(self, name: str, value: Any) -> None:
        """Accept an attribute with this value alone, which it has where it is absent."""
        if self.any(name, value) != value:
            raise self.refusal(name, f"is {self.values[name]!r}; only {value!r} is carried")

    def finish(self) -> None:
        """Refuse what was not understood and may change the function."""
        for name in sorted(OFF & self.values.keys() - self.ignore):
            if self.values[name]:
                raise self.refusal(name, f"= {_short(self.values[name])} is not carried")
        for name in sorted(self.values.keys() - self._known - KEPT - REWRITTEN - OFF - self.ignore):
            if self.values[name] is not None:
                raise self.refusal(name, f"= {_short(self.values[name])} is not understood")

    def kept(self) -> dict[str, Any]:
        """What says nothing about the function and is worth carrying on: special tokens, dropout, generation."""
        return {name: value for name, value in self.values.items() if name in KEPT}

    def refusal(self, name: str, reason: str) -> InputError:
        """The error that names an attribute."""
        written = self.values.get("transformers_version")
        by = f" (written by transformers {written})" if written else ""
        return InputError(f"{self.place}: {name} {reason}{by}")

    def _checked(self, name: str, default: Any, allowed: Any, what: str) -> Any:
        value = self.any(name, default)
        if value is _REQUIRED:
            raise self.refusal(name, f"is missing; expected {what}")
        if isinstance(value, bool) != (what == "true or false") or not allowed(value):
            raise self.refusal(name, f"must be {what}, got {_short(value)}")
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

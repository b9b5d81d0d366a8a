"""Windtunnel's models inside transformers: importing this makes its Auto classes load exported folders.

    import windtunnel.interop.auto
    model = AutoModelForCausalLM.from_pretrained("folder")
    model.generate(**tokenizer("def ", return_tensors="pt"), max_new_tokens=32)

No code is loaded from a folder: its spec is rebuilt from the parts that Windtunnel has.
"""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

import windtunnel.parts  # noqa: F401 - defines the kinds that files may hold
from windtunnel.errors import InputError
from windtunnel.root import ModelState
from windtunnel.spec import from_json

# What transformers calls the state of a call; renamed in 5.24.
CACHE = "cache" if "cache" in {one.name for one in fields(CausalLMOutputWithPast)} else "past_key_values"


class WindtunnelConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """A spec, and what generation asks of any model."""

    model_type = "windtunnel"
    keys_to_ignore_at_inference = [CACHE]  # noqa: RUF012 - transformers' own spelling

    spec: dict[str, Any] | None = None
    vocab_size: int = 0
    hidden_size: int = 0
    num_hidden_layers: int = 0
    max_position_embeddings: int = 0


class States:
    """Transformers' cache: the state of a call, kept for the next one."""

    is_compileable = False
    is_croppable = False
    is_linear = (False,)  # by layer: it knows how many tokens it has seen, so that a call is given only the later ones

    def __init__(self) -> None:
        self.state: ModelState | None = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen."""
        position = self.state.position if self.state is not None else 0
        return position if isinstance(position, int) else max(position)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows in the order of the beams that go on."""
        if self.state is not None:
            self.state = _rows(self.state, beam_idx)


class WindtunnelForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """Any language model of Windtunnel; its cache is a `States`, with what each mixer carries."""

    config_class = WindtunnelConfig
    base_model_prefix = "model"
    _supports_cache_class = True
    _is_stateful = True  # no rollback: assisted generation is refused

    def __init__(self, config: WindtunnelConfig) -> None:
        super().__init__(config)
        self.model = from_json(config.spec).build()  # type: ignore[attr-defined]
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: a model's initial values come from `windtunnel.build`, and all weights are in the folder."""

    def get_input_embeddings(self) -> Any:
        return self.model.embedding

    def get_output_embeddings(self) -> Any:
        return None

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any
    ) -> None:
        if generation_config.use_cache and model_kwargs.get(CACHE) is None:
            model_kwargs[CACHE] = States()

    def forward(
        self,
        input_ids: Tensor,
        past_key_values: States | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
        cache: States | None = None,
        **_: Any,
    ) -> Any:
        """Logits [b t v]; with `labels` [b t], the mean cross-entropy of each next token too (-100 counts nothing).

        The states of earlier tokens come as `cache` or, its name before transformers 5.24, as `past_key_values`.
        Rows must be without padding before their text; padding after it changes nothing there.
        """
        _refuse_left_padding(attention_mask)
        states = past_key_values if cache is None else cache
        if use_cache and states is None:
            states = States()
        state = None
        if states is not None:
            state = states.state or self.model.initial_state(len(input_ids))
        out = self.model(input_ids, state=state)
        if states is not None:
            states.state = out.state
        loss = None
        if labels is not None:
            loss = F.cross_entropy(out.logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        logits = out.logits[:, -logits_to_keep:] if logits_to_keep else out.logits
        carried: dict[str, Any] = {CACHE: states}
        found = CausalLMOutputWithPast(loss=loss, logits=logits, **carried)
        return found if return_dict is not False else found.to_tuple()


def _refuse_left_padding(mask: Tensor | None) -> None:
    if mask is not None and mask.dim() == 2 and not bool((mask[:, :1] != 0).all()):
        raise InputError(
            "attention_mask: rows must begin with their text; pad on the right, or give texts of one length"
        )


def _rows(value: Any, index: Tensor) -> Any:
    """A state whose tensors [b ...] have these rows."""
    if isinstance(value, Tensor):
        return value.index_select(0, index.to(value.device))
    if isinstance(value, tuple):
        rows = [_rows(item, index) for item in value]
        return type(value)(*rows) if hasattr(value, "_fields") else tuple(rows)
    return value


AutoConfig.register("windtunnel", WindtunnelConfig)
AutoModelForCausalLM.register(WindtunnelConfig, WindtunnelForCausalLM)

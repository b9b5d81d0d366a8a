"""The class of transformers that computes what a model of ours does, with its weights."""

from typing import Any

from windtunnel.checkpoint import model_tensors
from windtunnel.interop.exporting import choose
from windtunnel.root import ModelLayer


def load(ours: ModelLayer, **options: Any) -> Any:
    """The model that an export would write. options: of its configuration, such as `attn_implementation`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    family, attributes, _ = choose(ours.spec)
    config = AutoConfig.for_model(family.name, **attributes, **options)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    held = model_tensors(ours)
    theirs = {
        name: tensor
        for step in family.steps(ours.spec, ())
        for name, tensor in step.to_theirs([held[each] for each in step.ours]).items()
    }
    if ours.spec.head.tied:
        theirs["lm_head.weight"] = held["embedding.weight"]
    model.load_state_dict(theirs)
    return model.eval()

"""Self-test 4: an idea that can be turned off leaves its baseline's logits with copied weights.

nGPT and the first Differential Transformer have no such setting (protocol 15.4); what they become without their idea
is said by identities: at rates of zero nGPT sees the current token alone, with nothing subtracted the kernel of
differential attention is attention.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

from windtunnel.kernels import attention, differential_attention
from windtunnel.root import ModelLayer
from windtunnel.selftest.check import Lab, Outcome, largest, worst
from windtunnel.selftest.tiny import CONTEXT, LENGTH, tiny_model, tokens_for

ALLOWED = 1e-5  # float32, as the protocol has it


@dataclass(frozen=True)
class Null:
    """A recipe with its idea turned off by `settings`, and the recipe that it then is."""

    recipe: str
    settings: dict[str, Any]
    baseline: str
    baseline_settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As people read it."""
        off = ",".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.recipe}:{off} is {self.baseline}"


NULLS = (
    Null("bigbird", {"block": LENGTH}, "llama"),
    Null("topk_attention", {"top": LENGTH}, "llama"),
    Null("mixtral", {"experts": 1, "choices": 1, "hidden": 40}, "llama", {"hidden": 40}),
    Null("switch", {"experts": 1, "every": 1}, "switch", {"every": 4}),
    Null("griffin", {"pattern": "A", "window": 1000}, "mqa_transformer"),
    Null("griffin", {"pattern": "R"}, "hawk"),
    Null("gpt3", {"window": CONTEXT}, "gpt3", {"banded": False}),
    Null("gpt_neo", {"attention": "local", "window": CONTEXT}, "gpt_neo", {"attention": "global"}),
    Null("mpt_alibi", {"window": CONTEXT}, "mpt_alibi"),
    Null("h3", {"attention": 3}, "gpt3", {"banded": False}),
)


def difference(null: Null, dtype: torch.dtype = torch.float32) -> float:
    """Largest difference of the two models' logits, with the variant's weights in both."""
    variant = tiny_model(null.recipe, dtype, **null.settings)
    baseline = tiny_model(null.baseline, dtype, **null.baseline_settings)
    copy(variant, baseline)
    tokens = tokens_for(variant.spec)
    with torch.no_grad():
        return largest(variant(tokens).logits, baseline(tokens).logits)


@torch.no_grad()
def copy(variant: ModelLayer, baseline: ModelLayer) -> None:
    """Fill the baseline with the variant's weights by name.

    Of stacked experts it gets the only one; what the variant lacks, such as a table of positions, becomes zero.
    """
    given = dict(variant.named_parameters())
    for name, parameter in baseline.named_parameters():
        stacked = given.get(name.removesuffix(".weight"))
        if name in given:
            parameter.copy_(given[name])
        elif stacked is not None:
            parameter.copy_(stacked[0])
        else:
            parameter.zero_()


@torch.no_grad()
def ngpt_at_rate_zero(dtype: torch.dtype = torch.float32) -> float:
    """Largest difference of nGPT's logits with all rates at zero and those of each token's embedding alone."""
    model = tiny_model("ngpt", dtype)
    model.project_()
    for name, parameter in model.named_parameters():
        if name.endswith("_rate.weight"):
            parameter.zero_()
    tokens = tokens_for(model.spec)
    scale = model.get_parameter("head.token_scale.weight") * model.spec.width**0.5
    expected = F.linear(model.embedding.weight[tokens], model.get_parameter("head.weight")) * scale
    return largest(model(tokens).logits, expected)


def differential_at_zero(dtype: torch.dtype = torch.float32) -> float:
    """Largest difference of differential attention that subtracts nothing and attention by its first maps."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, 20, width, generator=draw, dtype=dtype) for heads, width in ((4, 4), (4, 4), (2, 8))
    )
    ours = differential_attention(q, k, v, torch.zeros((), dtype=dtype), 0.5, None, True)
    return largest(ours, attention(q[:, 0::2], k[:, 0::2], v, 0.5, None, True))


def null_variants(lab: Lab) -> Outcome:
    """Every null setting, and the two identities."""
    found = {null.name: difference(null) for null in NULLS}
    found["ngpt, rates of zero"] = ngpt_at_rate_zero()
    found["differential attention, nothing subtracted"] = differential_at_zero()
    return worst(found, ALLOWED)

"""All families that there are, by the name that `config.json` gives them."""

from windtunnel.errors import InputError
from windtunnel.interop.cohere import COHERE
from windtunnel.interop.config import Config
from windtunnel.interop.diff_llama import DIFF_LLAMA
from windtunnel.interop.family import Family
from windtunnel.interop.gpt2 import GPT2
from windtunnel.interop.gpt_neo import GPT_NEO
from windtunnel.interop.gptj import GPTJ
from windtunnel.interop.llama import LLAMA, MISTRAL, QWEN2
from windtunnel.interop.mamba import MAMBA
from windtunnel.interop.mixtral import MIXTRAL
from windtunnel.interop.mpt import MPT
from windtunnel.interop.neox import GPT_NEOX
from windtunnel.interop.recurrent_gemma import RECURRENT_GEMMA
from windtunnel.interop.same import differences
from windtunnel.interop.wind import WINDTUNNEL
from windtunnel.root import Model
from windtunnel.spec import nearest

# In the order in which an export tries them; the last one can say every language model.
_ALL = (
    *(LLAMA, MISTRAL, QWEN2, MIXTRAL, DIFF_LLAMA, COHERE, GPT2, GPT_NEO, GPTJ, GPT_NEOX, MPT),
    *(RECURRENT_GEMMA, MAMBA, WINDTUNNEL),
)
FAMILIES = {family.name: family for family in _ALL}


def family_named(name: object, place: str) -> Family:
    """The family of a `model_type`."""
    if name not in FAMILIES:
        raise InputError(f"{place}: model_type {name!r} is not carried{nearest(str(name), FAMILIES)}")
    return FAMILIES[str(name)]


def written(family: Family, spec: Model) -> dict[str, object]:
    """The attributes of a spec in a family, or an `InputError` with what the family cannot say."""
    attributes = family.write(spec)
    config = Config(attributes, family.name)
    back = family.read(config)
    config.finish()
    found = differences(spec, back)
    if found:
        path, ours, theirs = found[0]
        raise InputError(f"{path} is {ours!r}, where {family.architecture} has {theirs!r}")
    return attributes

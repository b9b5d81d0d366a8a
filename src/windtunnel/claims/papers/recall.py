"""Recall against the size of the state (Arora et al. 2023, Zoology, and 2024, Based)."""

from windtunnel.claims.claim import Claim, Figure
from windtunnel.claims.tasks import accuracy, solved

_ZOOLOGY = "Arora et al. 2023, arXiv 2312.04927"
_BASED = "Arora et al. 2024, arXiv 2402.18668"
_COMMAND = (
    "windtunnel compare llama=llama:width=64 llama-32=llama:width=32 llama-16=llama:width=16 hawk-64=hawk:width=64 "
    "hawk-128=hawk:width=128 mamba-64=mamba:width=64 --task mqar:vocab=64,length=32,pairs=4 --baseline llama "
    "--allow-param-gap --tokens 1M --seeds 3 --out studies/mqar-state"
)


def _behind(label: str) -> Claim:
    """A fixed state beside a cache, at one width."""
    name = label.split("-")[0]
    return Claim(
        name=f"mqar-{name}",
        paper=_ZOOLOGY,
        place="section 4, figure 2",
        says=f"Of models of one width, one with a fixed state, as {name.capitalize()}'s, recalls less than attention.",
        setting="8,192 tokens in the vocabulary, 64 to 512 tokens with 4 to 64 pairs, widths of 64 to 512, 2 layers",
        quantity="accuracy minus attention's, both of width 64",
        figure=Figure(text="below 0", high=0.0, nothing=0.0),
        read=accuracy("mqar", label, "llama"),
        command=_COMMAND,
    )


CLAIMS = (
    Claim(
        name="mqar-attention",
        paper=_ZOOLOGY,
        place="section 4, figure 2",
        says="Attention recalls all pairs, whatever its width.",
        setting="8,192 tokens in the vocabulary, 64 to 512 tokens with 4 to 64 pairs, widths of 64 to 512, 2 layers",
        quantity="accuracy of attention of width 32, half of the widest",
        figure=Figure(text="1", low=0.99, high=1.0),
        read=solved("mqar", "llama-32"),
        command=_COMMAND,
    ),
    _behind("hawk-64"),
    _behind("mamba-64"),
    Claim(
        name="mqar-state",
        paper=_BASED,
        place="figure 2",
        says="The larger the state of a recurrence, the more it recalls.",
        setting="MQAR, states of up to some megabytes, several architectures",
        quantity="accuracy of Hawk of width 128 minus that of width 64",
        figure=Figure(text="above 0", low=0.0, nothing=0.0),
        read=accuracy("mqar", "hawk-128", "hawk-64"),
        command=_COMMAND,
    ),
)

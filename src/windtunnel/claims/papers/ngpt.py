"""nGPT (Loshchilov et al. 2024, arXiv 2410.01131)."""

from windtunnel.claims.benches import step_time
from windtunnel.claims.claim import Claim, Figure
from windtunnel.claims.studies import speedup

_PAPER = "Loshchilov et al. 2024, arXiv 2410.01131"


def _at(context: int, times: float, batch: int) -> Claim:
    """Its speedup at one context length."""
    name = f"{context // 1024}k"
    return Claim(
        name=f"ngpt-{name}",
        paper=_PAPER,
        place="section 3.1, figures 1 and 2",
        says=f"At a context of {name} tokens it reaches GPT's loss in about {times:g} times fewer steps.",
        setting=f"0.5B and 1B parameters, context {name}, up to 400B tokens; GPT's weights stored in bfloat16",
        quantity="times fewer tokens for the baseline's loss",
        figure=Figure(text=f"{times:g}x", low=times, high=times, nothing=1.0),
        read=speedup("ngpt", "llama", where=lambda settings: settings["context"] == context),
        command=f"windtunnel compare llama ngpt --context {context} --batch {batch} --out studies/ngpt-{name}",
    )


CLAIMS = (
    _at(1024, 4.0, 8),
    _at(4096, 10.0, 4),
    _at(8192, 20.0, 2),
    Claim(
        name="ngpt-short",
        paper=_PAPER,
        place="section 3.1, figure 1",
        says="It needs fewer steps; the gain grows with the context, of which 1k is the shortest published.",
        setting="0.5B and 1B parameters, contexts of 1k and more",
        quantity="times fewer tokens for the baseline's loss, at contexts below 1k",
        figure=Figure(text="above 1x (4x at 1k)", low=1.0, nothing=1.0),
        read=speedup("ngpt", "llama", where=lambda settings: settings["context"] < 1024),
        command="windtunnel compare llama ngpt --preset standard --out studies/ngpt",
    ),
    Claim(
        name="ngpt-step",
        paper=_PAPER,
        place="appendix A.4",
        says="A step takes 60 to 80 % more time before its normalisations are fused.",
        setting="1B parameters, 80 % at a context of 4k, 60 % at 8k, A100",
        quantity="time of a step over the baseline's",
        figure=Figure(text="1.6 to 1.8", low=1.6, high=1.8, nothing=1.0),
        read=step_time("ngpt"),
        command="windtunnel bench steps --json",
    ),
)

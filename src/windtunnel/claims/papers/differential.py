"""Differential Transformer (Ye et al. 2024, arXiv 2410.05258)."""

from windtunnel.claims.benches import step_time
from windtunnel.claims.claim import Claim, Figure
from windtunnel.claims.ladders import saving
from windtunnel.claims.studies import speedup
from windtunnel.claims.tasks import accuracy, setting

_PAPER = "Ye et al. 2024, arXiv 2410.05258"


def _needles(count: int, ours: float, theirs: float) -> Claim:
    """Several needles, two of them asked for."""
    return Claim(
        name=f"diff-needles-{count}-2",
        paper=_PAPER,
        place="section 3.3, table 2",
        says=f"Of {count} needles in a text it finds the two that are asked for more often.",
        setting=f"3B parameters, 4k tokens: {ours:.2f} against {theirs:.2f}",
        quantity="accuracy minus the baseline's",
        figure=Figure(text=f"+{ours - theirs:.2f}", low=0.0, nothing=0.0),
        read=accuracy("needles", "diff_transformer", "llama", rung=setting(needles=count, asked=2)),
        command="windtunnel compare llama diff_transformer --task needles:length=64,needles=4 --seeds 3 "
        "--out studies/needles",
    )


CLAIMS = (
    Claim(
        name="diff-tokens",
        paper=_PAPER,
        place="section 3.2, figure 3b",
        says="It reaches a Transformer's loss with about 64 % of the training tokens.",
        setting="2.8B parameters, 160B against 251B tokens",
        quantity="times fewer tokens for the baseline's loss",
        figure=Figure(text="1.57x (63.7 %); 1.54x by the abstract's 65 %", low=1.54, high=1.57, nothing=1.0),
        read=speedup("diff_transformer", "llama"),
        command="windtunnel compare llama diff_transformer --preset standard --out studies/diff",
    ),
    Claim(
        name="diff-size",
        paper=_PAPER,
        place="section 3.2, figure 3a",
        says="It reaches a Transformer's loss with about 62 % of the parameters.",
        setting="830M to 13.1B parameters, 10B tokens each",
        quantity="times less compute for the baseline's loss",
        figure=Figure(text="1.61x (62.2 %) to 1.68x (59.5 %) in parameters", low=1.61, high=1.68, nothing=1.0),
        read=saving("diff_transformer", "llama"),
        command="windtunnel scale llama diff_transformer --preset small --out studies/ladder --json",
    ),
    _needles(4, 0.84, 0.62),
    _needles(6, 0.85, 0.55),
    Claim(
        name="diff-throughput",
        paper=_PAPER,
        place="appendix A, table 7",
        says="Its training throughput is 5 to 12 % lower.",
        setting="3B and 13B parameters, 2k and 4k tokens, H100, FlashAttention-2",
        quantity="training throughput over the baseline's",
        figure=Figure(text="0.88 to 0.95", low=0.88, high=0.95, nothing=1.0),
        read=step_time("diff_transformer", invert=True),
        command="windtunnel bench steps --json",
    ),
)

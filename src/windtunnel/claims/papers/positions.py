"""Text longer than was trained on: rotary positions, ALiBi, interpolation, YaRN."""

import math

from windtunnel.claims.claim import Claim, Figure
from windtunnel.claims.lengths import against, past_length, rescaled, trained_further

_ALIBI = "Press et al. 2022, arXiv 2108.12409"
_PI = "Chen et al. 2023, arXiv 2306.15595"
_YARN = "Peng et al. 2023, arXiv 2309.00071"
_COMMAND = "windtunnel bench length --out studies/length"
_FLAT = 0.02  # nats that count as none, as in the effective length
_LLAMA = "LLaMA 7B, trained at 2,048 tokens, PG-19"

CLAIMS = (
    Claim(
        name="alibi-length",
        paper=_ALIBI,
        place="table of WikiText-103 results",
        says="ALiBi's loss does not rise past the trained length.",
        setting="247M parameters, WikiText-103, trained at 1,024 tokens, read in disjoint windows of up to 16k: "
        "perplexity 18.66 at it, 18.05 at twice, 17.92 at three times",
        quantity="nats of the same targets at four times the trained length, over at it",
        figure=Figure(text=f"at most 0 ({math.log(17.92 / 18.66):+.2f} at three times)", high=_FLAT, whole=True),
        read=past_length("ALiBi", 4.0),
        command=_COMMAND,
    ),
    Claim(
        name="rope-length",
        paper=_ALIBI,
        place="table of WikiText-103 results",
        says="Rotary positions do not extrapolate.",
        setting="247M parameters, WikiText-103, trained at 1,024 tokens: perplexity 19.33 at it, 31.2 at twice, "
        "35.7 at three times, 107 at 16 times",
        quantity="nats of the same targets at four times the trained length, over at it",
        figure=Figure(text=f"above 0 ({math.log(35.7 / 19.33):+.2f} at three times)", low=0.0, nothing=0.0),
        read=past_length("RoPE", 4.0),
        command=_COMMAND,
    ),
    Claim(
        name="pi-untrained",
        paper=_PI,
        place="section 3.2",
        says="Interpolation by four without training costs a lot.",
        setting=f"{_LLAMA}: perplexity 16.10 at 8,192 tokens, 7.20 at 2,048",
        quantity="nats of the same targets at four times the trained length, interpolated, over at it",
        figure=Figure(text=f"{math.log(16.10 / 7.20):+.2f}", low=0.0, nothing=0.0),
        read=rescaled("linear", 4.0),
        command=_COMMAND,
    ),
    Claim(
        name="pi-far",
        paper=_PI,
        place="section 3.2",
        says="The further interpolation has to reach without training, the more it costs.",
        setting=f"{_LLAMA}: perplexity 112.13 at 16,384 tokens, 16.10 at 8,192",
        quantity="nats of the same targets at 16 times the trained length, interpolated, over at four times",
        figure=Figure(text=f"{math.log(112.13 / 16.10):+.2f} at eight times", low=0.0, nothing=0.0),
        read=rescaled("linear", 16.0, over=4.0),
        command=_COMMAND,
    ),
    Claim(
        name="pi-trained",
        paper=_PI,
        place="section 3.2",
        says="After 1,000 steps of training interpolation by four costs nothing.",
        setting=f"{_LLAMA}: perplexity 6.95 at 8,192 tokens, 7.20 at 2,048 before",
        quantity="nats of the same targets at four times the trained length after training, over at it before",
        figure=Figure(text=f"{math.log(6.95 / 7.20):+.2f}", high=_FLAT, whole=True),
        read=trained_further("linear", 4.0),
        command=_COMMAND,
    ),
    Claim(
        name="yarn-trained",
        paper=_YARN,
        place="Proof-pile figures of its repository",
        says="Past the length that it was extended to, YaRN rises less than interpolation.",
        setting="Llama 2 7B extended to 8k: perplexity 6.05 against 8.07 at 10,240 tokens",
        quantity="nats at eight times the first length after extension by four, over interpolation's",
        figure=Figure(text=f"{math.log(6.05 / 8.07):+.2f} at 1.25 times the extended length", high=0.0, nothing=0.0),
        read=against("yarn", "linear", 8.0),
        command=_COMMAND,
    ),
)

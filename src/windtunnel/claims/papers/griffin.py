"""Griffin and Hawk (De et al. 2024, arXiv 2402.19427)."""

from windtunnel.claims.benches import far_token, token_latency
from windtunnel.claims.claim import Claim, Figure
from windtunnel.claims.ladders import held_out_error
from windtunnel.claims.lengths import past_length
from windtunnel.claims.tasks import accuracy, steps, times_longer

_PAPER = "De et al. 2024, arXiv 2402.19427"
_EQUAL = 0.03  # accuracies that differ by less are equal, as in a study's verdict
_DECODE = "windtunnel bench decode mqa_transformer griffin hawk --prompts 64,1k,4k --batches 1,16 --json"


_TRANSFORMERS = ("mqa_transformer", "llama")
_COPYING = (
    "windtunnel compare llama hawk griffin:pattern=RA,window=16 --task selective_copying:symbols=4,length=32,items=4 "
    "--set width=64 --tokens 2M --seeds 3 --out studies/selective-copying"
)
_INDUCTION = (
    "windtunnel compare llama hawk griffin:pattern=RA,window=16 --task induction:vocab=8,length=32 --set width=64 "
    "--batch 128 --tokens 2M --seeds 3 --out studies/induction-32"
)
_COPIED = "5 blocks, about 250k parameters, 1,024 tokens of which 16 are copied"
_INDUCED = "5 blocks, about 250k parameters, 256 tokens"


def _solves(label: str, task: str, says: str, setting: str, command: str) -> Claim:
    """A task that both solve at the length that they were trained at."""
    return Claim(
        name=f"{label}-{task.replace('_', '-')}",
        paper=_PAPER,
        place="section 6.2, figure 6",
        says=says,
        setting=setting,
        quantity="accuracy minus the transformer's",
        figure=Figure(text="0: both solve it", low=-_EQUAL, high=_EQUAL, whole=True),
        read=accuracy(task, label, *_TRANSFORMERS),
        command=command,
    )


def _copying_steps(label: str, says: str, figure: Figure) -> Claim:
    """How soon selective copying is learned."""
    return Claim(
        name=f"{label}-copying-steps",
        paper=_PAPER,
        place="section 6.2, figure 6",
        says=says,
        setting=f"{_COPIED}; curves alone",
        quantity="steps to solve it over the transformer's",
        figure=figure,
        read=steps("selective_copying", label, *_TRANSFORMERS),
        command=_COPYING,
    )


def _induces_further(label: str) -> Claim:
    """Induction past the trained length."""
    return Claim(
        name=f"{label}-induction-further",
        paper=_PAPER,
        place="section 6.2, figure 6",
        says=f"{label.capitalize()} finds what followed the token in longer texts than it was trained on, where the "
        "transformer fails.",
        setting=f"{_INDUCED}; asked at several times that",
        quantity="accuracy minus the transformer's at four times the trained length",
        figure=Figure(text="above 0", low=0.0, nothing=0.0),
        read=accuracy("induction", label, *_TRANSFORMERS, rung=times_longer(4)),
        command=_INDUCTION,
    )


def _past(label: str) -> Claim:
    """Reading past the trained length."""
    return Claim(
        name=f"{label.lower()}-length",
        paper=_PAPER,
        place="section 6.1, figure 5",
        says=f"{label} goes on improving with text up to at least four times the trained length.",
        setting="1B parameters, trained at 2k and 8k tokens, read at up to 32k",
        quantity="nats of the same targets at four times the trained length, over at it",
        figure=Figure(text="below 0", high=0.0, nothing=0.0),
        read=past_length(label, 4.0),
        command="windtunnel bench length --out studies/length",
    )


def _flat(label: str) -> Claim:
    """A state that does not grow."""
    return Claim(
        name=f"{label}-far",
        paper=_PAPER,
        place="section 5, figure 4",
        says=f"{label.capitalize()}'s state does not grow: a token far into a text takes no longer than an early one.",
        setting="1B parameters, batch 16, up to 4k tokens",
        quantity="time of a token far into a text over a near one",
        figure=Figure(text="no rise (at most 1.1)", low=0.0, high=1.1, whole=True),
        read=far_token(label),
        command="windtunnel bench generate positions --json",
    )


def _faster(label: str) -> Claim:
    """Latency on long sequences."""
    return Claim(
        name=f"{label}-latency",
        paper=_PAPER,
        place="section 5, figures 1b and 4",
        says=f"On long sequences {label.capitalize()}'s tokens take less time than multi-query attention's.",
        setting="1B parameters, batch 16, after 4k tokens; plots alone",
        quantity="time between tokens over multi-query attention's, after 4k tokens",
        figure=Figure(text="below 1", low=0.0, high=1.0, nothing=1.0),
        read=token_latency(label, "mqa_transformer", 4000),
        command=_DECODE,
    )


CLAIMS = (
    Claim(
        name="griffin-power-law",
        paper=_PAPER,
        place="section 3.2, figure 1a",
        says="Its loss is a power law of the training compute.",
        setting="100M to 14B parameters",
        quantity="error of the law in a budget that it has not seen, as a share of the loss",
        figure=Figure(text="a straight line", low=0.0, high=0.02),
        read=held_out_error("griffin"),
        command="windtunnel scale llama griffin --preset small --out studies/ladder --json",
    ),
    _faster("griffin"),
    _faster("hawk"),
    _flat("griffin"),
    _flat("hawk"),
    _past("Griffin"),
    _past("Hawk"),
    _solves("griffin", "selective_copying", "It solves selective copying as a transformer does.", _COPIED, _COPYING),
    _solves("hawk", "selective_copying", "Hawk solves selective copying too.", _COPIED, _COPYING),
    _copying_steps(
        "griffin",
        "Griffin learns selective copying about as fast as a transformer.",
        Figure(text="about 1", low=0.8, high=1.25, whole=True),
    ),
    _copying_steps(
        "hawk",
        "Hawk learns selective copying markedly more slowly than a transformer.",
        Figure(text="above 1", low=1.0, nothing=1.0),
    ),
    _solves("griffin", "induction", "It solves induction as a transformer does.", _INDUCED, _INDUCTION),
    _solves("hawk", "induction", "Hawk solves induction too.", _INDUCED, _INDUCTION),
    _induces_further("griffin"),
    _induces_further("hawk"),
)

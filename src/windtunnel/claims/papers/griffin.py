"""Griffin and Hawk (De et al. 2024, arXiv 2402.19427)."""

from windtunnel.claims.benches import far_token, past_length, token_latency
from windtunnel.claims.claim import Claim, Figure
from windtunnel.claims.ladders import held_out_error
from windtunnel.claims.tasks import accuracy

_PAPER = "De et al. 2024, arXiv 2402.19427"
_EQUAL = 0.03  # accuracies that differ by less are equal, as in a study's verdict
_DECODE = "windtunnel bench decode mqa_transformer griffin hawk --prompts 64,1k,4k --batches 1,16 --json"


def _as_fast(name: str, task: str, settings: str, says: str, setting: str) -> Claim:
    """Griffin learns a task as a transformer does."""
    return Claim(
        name=name,
        paper=_PAPER,
        place="section 6.2, figure 6",
        says=says,
        setting=setting,
        quantity="accuracy minus the transformer's",
        figure=Figure(text="0: both solve it", low=-_EQUAL, high=_EQUAL, whole=True),
        read=accuracy(task, "griffin", "mqa_transformer"),
        command=f"windtunnel compare mqa_transformer griffin hawk --baseline mqa_transformer --task {task}{settings} "
        f"--out studies/{name}",
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
        command="windtunnel fit studies/ladder-* --baseline llama --json",
    ),
    _faster("griffin"),
    _faster("hawk"),
    _flat("griffin"),
    _flat("hawk"),
    _past("Griffin"),
    _past("Hawk"),
    _as_fast(
        "griffin-copying",
        "selective_copying",
        "",
        "It learns selective copying as fast as a transformer.",
        "5 blocks, about 250k parameters, 1,024 tokens of which 16 are copied",
    ),
    _as_fast(
        "griffin-induction",
        "induction",
        ":length=64",
        "It learns induction heads as fast as a transformer.",
        "5 blocks, about 250k parameters, 256 tokens",
    ),
)

"""PaLM (Chowdhery et al. 2022, arXiv 2204.02311)."""

from windtunnel.claims.benches import parallel_speed, replays, utilisation
from windtunnel.claims.claim import Claim, Figure
from windtunnel.claims.studies import speedup

_PAPER = "Chowdhery et al. 2022, arXiv 2204.02311"
_PLAN = "windtunnel plan --published --json"


CLAIMS = (
    Claim(
        name="palm-parallel-speed",
        paper=_PAPER,
        place="section 2, parallel layers",
        says="Parallel blocks train about 15 % faster at scale than serial ones.",
        setting="large scales, on TPU v4 pods, where fused products and halved sums over devices count",
        quantity="steps a second over the serial block's",
        figure=Figure(text="1.15", low=1.10, high=1.20, nothing=1.0),
        read=parallel_speed,
        command="windtunnel bench steps --json",
    ),
    Claim(
        name="palm-parallel-quality",
        paper=_PAPER,
        place="section 2, parallel layers",
        says="Parallel blocks lose a little quality at 8B parameters and none at 62B.",
        setting="8B and 62B parameters",
        quantity="times fewer tokens for the serial block's loss",
        figure=Figure(text="1 (none lost)", low=1 / 1.03, high=1.03, whole=True),
        read=speedup("palm", "serial"),
        command="windtunnel compare palm serial=palm:parallel=false --baseline serial --out studies/parallel",
    ),
    Claim(
        name="palm-mfu",
        paper=_PAPER,
        place="section 4.1, table 3",
        says="Training of the largest model used 46.2 % of the hardware's peak.",
        setting="540B parameters, 6,144 TPU v4",
        quantity="MFU, %",
        figure=Figure(text="46.2 %", low=46.15, high=46.25),
        read=utilisation("PaLM 540B: MFU"),
        command=_PLAN,
    ),
    Claim(
        name="palm-hfu",
        paper=_PAPER,
        place="section 4.1",
        says="With what was computed twice it was 57.8 %.",
        setting="540B parameters, 6,144 TPU v4",
        quantity="HFU, %",
        figure=Figure(text="57.8 %", low=57.75, high=57.85),
        read=utilisation("PaLM 540B: HFU"),
        command=_PLAN,
    ),
    Claim(
        name="palm-spikes-state",
        paper=_PAPER,
        place="section 5.1",
        says="The batches of a spike make none when another state reads them: data and state have to meet.",
        setting="540B parameters, batches of spikes replayed from other checkpoints",
        quantity="share of other states that spike on the data of a spike",
        figure=Figure(text="0", low=0.0, high=0.0, nothing=1.0),
        read=replays,
        command="windtunnel bench spikes --rounds 8 --json",
    ),
    Claim(
        name="palm-spikes-skipped",
        paper=_PAPER,
        place="section 5.1",
        says="About 20 spikes in a run; going back 100 steps and skipping 200 to 500 batches, none came again.",
        setting="540B parameters, 780B tokens; smaller models had none",
        quantity="spikes that come again after their data was skipped",
        figure=Figure(text="0 of about 20", low=0.0, high=0.0),
        missing="No spike was seen here under AdamW or Adafactor, so that none could be skipped (docs/training.md).",
    ),
)

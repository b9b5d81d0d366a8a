"""A made-up but self-consistent results.json: four recipes, five seeds, the sizes of the `quick` preset.

`results()` is the ordinary case; the variants change one thing each. Nothing here was measured.
"""

import copy
import math
import random
import statistics
from typing import Any

from scipy import stats

SEEDS = [1, 2, 3, 4, 5]
TOKENS = 614_400
FRACTIONS = (0.25, 0.5, 1.0)
SLOPE = 0.42
CONTEXT = 128
VOCABULARY = 1024
BYTES_PER_TOKEN = 3.1
INITIAL_LOSS = math.log(VOCABULARY)

# label, paper, loss at D, learning rate, body parameters, model FLOPs a token, tokens a second, hidden size
ARMS: dict[str, tuple[str, str, float, float, int, float, float, int]] = {
    "llama": ("Llama-style", "arXiv 2302.13971", 3.742, 0.0060, 147_904, 1.354e6, 21_900.0, 172),
    "palm": ("PaLM", "arXiv 2204.02311", 3.748, 0.0060, 147_776, 1.349e6, 23_650.0, 216),
    "diff_transformer": ("Diff Transformer", "arXiv 2410.05258", 3.718, 0.0060, 148_192, 1.472e6, 17_300.0, 172),
    "ngpt": ("nGPT", "arXiv 2410.01131", 3.601, 0.0240, 148_224, 1.356e6, 17_900.0, 172),
}  # fmt: skip


def results() -> dict[str, Any]:
    """The ordinary study: nGPT wins, Diff is mixed (tokens against the clock), PaLM is not told apart from Llama."""
    draw = random.Random(7)
    common = [draw.gauss(0.0, 0.012) for _ in SEEDS]
    losses = {name: _losses(name, common, draw) for name in ARMS}
    arms = {name: _arm(name, losses[name], draw) for name in ARMS}
    comparisons = [_comparison(name, arms, draw) for name in ARMS if name != "llama"]
    return {
        "study": "3f9a1c5be2d04471",
        "title": "Four GPT variants on the Python standard library",
        "created": "2026-01-15T10:42:00Z",
        "preset": "quick",
        "baseline": "llama",
        "data": _data(),
        "settings": {
            "tokens": TOKENS, "context": CONTEXT, "batch_size": 16, "vocab": VOCABULARY, "seeds": SEEDS,
            "horizons": list(FRACTIONS), "warmup": 0.03, "cooldown": 0.2, "evaluation_tokens": 65_536,
            "schedule": "wsd", "estimator": "B", "margin": 0.03, "primary_track": "iso_token",
        },
        "versions": {
            "windtunnel": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.2", "device": "cpu", "processor": "2 cores",
            "threads": 1, "workers": 2, "dtype": "float32", "compile": False,
        },
        "power": {"sigma": 0.011, "detectable_delta": 0.018, "detectable_speedup": 1.045, "prior": True},
        "arms": arms,
        "comparisons": comparisons,
        "held_equal": _held_equal(),
        "failures": [],
        "caveats": [
            "One scale (147k body parameters) and one data set: a gain here can fade with size.",
            "With 5 seeds a sign-flip test cannot give p < 0.0625; the intervals are Student's t.",
            "Speed was measured at a context of 128 tokens, eager fp32 on a CPU; other kernels give other ratios.",
            "The learning rate was tuned at half of the tokens, without a bracket check (that starts at `standard`).",
        ],
        "notes": ["Throughput was measured in its own process, in alternation, 8 blocks an arm."],
    }  # fmt: skip


def with_failed_arm() -> dict[str, Any]:
    """`palm` ran out of memory: it has no loss and no comparison, and the failure is told."""
    changed = results()
    for key in ("loss", "bits_per_byte", "horizons", "curve", "throughput", "tokens_per_second"):
        changed["arms"]["palm"].pop(key)
    changed["comparisons"] = [c for c in changed["comparisons"] if c["variant"] != "palm"]
    error = "MemoryError: could not allocate 1.2 GiB"
    changed["failures"] = [{"arm": "palm", "job": "run seed 3, horizon 1.0", "error": error}]
    return changed


def with_censored_arm() -> dict[str, Any]:
    """`palm` never reached the baseline's loss: only bounds, no point estimates; its learning rate is at the edge."""
    changed = results()
    one = next(c for c in changed["comparisons"] if c["variant"] == "palm")
    for name, bound in (("s_tok", 1.0), ("s_flop", 1.004), ("s_time", 1.08)):
        one[name] = {
            "value": None,
            "ci95": [None, bound],
            "censored": True,
            "reason": "target not bracketed by the horizons",
        }
    one |= {
        "delta_nats": 0.31,
        "ci95": [0.27, 0.35],
        "verdict": "preliminary",
        "grade": "D",
        "saved": None,
        "s_targets": None,
    }
    one |= {"caps": ["palm: learning rate at the edge of its grid"], "sentence": None, "product": None}
    changed["arms"]["palm"] |= {"lr_at_edge": True, "untuned": True}
    return changed


def with_refused_speedups() -> dict[str, Any]:
    """The local slope does not hold for so large a difference: the speedups of `ngpt` are null."""
    changed = results()
    one = next(c for c in changed["comparisons"] if c["variant"] == "ngpt")
    refused = {"value": None, "ci95": [None, None], "censored": False, "reason": "no slope: only one horizon"}
    one |= {"s_tok": None, "s_flop": refused, "s_time": None}
    one |= {"sentence": None, "saved": None, "product": None}
    return changed


def minimal() -> dict[str, Any]:
    """Only the names that the schema promises; everything optional is missing."""
    full = results()
    kept = (
        "n_body",
        "param_gap",
        "flops_per_token",
        "tokens_per_second",
        "lr",
        "lr_at_edge",
        "loss",
        "bits_per_byte",
        "state_bytes",
        "batch_hash",
    )
    compared = ("variant", "baseline", "delta_nats", "ci95", "n", "s_tok", "s_flop", "s_time", "verdict", "grade")
    return {
        "study": full["study"],
        "preset": full["preset"],
        "baseline": full["baseline"],
        "data": {},
        "arms": {name: {key: arm[key] for key in kept} for name, arm in full["arms"].items()},
        "comparisons": [{key: one[key] for key in compared} for one in full["comparisons"]],
    }


def hostile() -> dict[str, Any]:
    """Names and texts that try to become markup."""
    changed = copy.deepcopy(results())
    evil = '<img src=x onerror="alert(1)">'
    changed["title"] = f"</title><script>alert(1)</script>{evil}"
    changed["arms"][evil] = changed["arms"].pop("palm") | {
        "label": evil,
        "paper": "javascript:alert(1)",
        "colour": "red;}</style>",
    }
    for one in changed["comparisons"]:
        if one["variant"] == "palm":
            one |= {"variant": evil, "sentence": evil, "verdict": evil}
    changed["caveats"].append(evil)
    changed["failures"] = [{"arm": evil, "job": evil, "error": f"</script>{evil}"}]
    changed["held_equal"][0]["evidence"] = evil
    changed["data"]["name"] = evil
    return changed


def _losses(name: str, common: list[float], draw: random.Random) -> dict[float, list[float]]:
    """Final losses by horizon and seed: a level, a common seed effect, and the arm's own noise."""
    level = ARMS[name][2]
    steeper = 1.12 if name == "ngpt" else 1.0
    own = {"llama": 0.0, "ngpt": 0.011}.get(name, 0.008)
    return {
        share: [level - SLOPE * steeper * math.log(share) + c + draw.gauss(0.0, own) for c in common]
        for share in FRACTIONS
    }


def _interval(values: list[float]) -> list[float]:
    half = _half(values)
    mean = statistics.fmean(values)
    return [mean - half, mean + half]


def _half(values: list[float]) -> float:
    return float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def _summary(values: list[float]) -> dict[str, Any]:
    return {"mean": statistics.fmean(values), "ci95": _interval(values), "seeds": values}


def _arm(name: str, losses: dict[float, list[float]], draw: random.Random) -> dict[str, Any]:
    label, paper, _, rate, body, flops, speed, hidden = ARMS[name]
    base = ARMS["llama"]
    tables = VOCABULARY * 64
    tied = name == "palm"
    horizons = {
        str(share): {"tokens": round(TOKENS * share), "loss": _summary(values), "bits_per_byte": _bits(values)}
        for share, values in losses.items()
    }
    ratio = speed / base[6]
    return {
        "recipe": name, "label": label, "paper": paper, "fingerprint": f"{abs(hash_text(name)):016x}",
        "n_body": body, "param_gap": body / base[4] - 1, "flops_per_token": flops, "tokens_per_second": speed,
        "params": {"n_total": body + tables * (1 if tied else 2), "n_emb": tables,
                   "n_unemb": 0 if tied else tables,
                   "n_body": body, "n_matmul": body + tables - 448, "n_active": body + tables - 448},
        "flops": {"model": flops, "hardware": 1.02 * flops, "elementwise": 0.043 * flops,
                  "by_kernel": {"maps kept": flops,
                                "maps recomputed": 1.05 * flops if name == "diff_transformer" else flops}},
        "ledger": _ledger(name, hidden),
        "matching": {"knob": "hidden", "value": hidden, "gap": body / base[4] - 1},
        "lr": rate, "lr_at_edge": False, "untuned": False, "lr_sensitivity": 0.061 if name == "ngpt" else 0.118,
        "expected_best": [4.412, 4.238, 4.171, 4.139, 4.121],
        "trials": _trials(name, rate, losses, draw),
        "loss": _summary(losses[1.0]), "bits_per_byte": _bits(losses[1.0]), "horizons": horizons,
        "curve": _curve(losses, draw),
        "throughput": {"tokens_per_second": speed, "ratio": ratio, "ci95": [ratio * 0.981, ratio * 1.019],
                       "block_cv": 0.021,
                       "step_ms": 2048 / speed * 1000, "process_ms": 2046 / speed * 1000, "jitter": 1.06,
                       "ideal_ratio": base[5] / flops, "mfu": 0.31 * ratio * flops / base[5],
                       "note": "speed limited by implementation, not mechanism" if name == "diff_transformer" else ""},
        "state_bytes": {str(t): 3 * t * 4 * (64 if name != "palm" else 16) * 2 for t in (128, 256, 512, 1024)},
        "own_settings": _own_settings(name), "spec_difference": _spec_difference(name),
        "minimality": _minimality(name, body, flops),
        "diverged": 0, "nonfinite_steps": 0, "train_seconds": TOKENS / speed,
        "lr_reason": "vertex of a parabola through the best three",
        "batch_hash": "9d1e6f1f5c1c0a7e6f2b1d3c4a5968778695a4b3c2d1e0f9081726354453627a",
    }  # fmt: skip


def hash_text(text: str) -> int:
    """A stable number from a text (Python's own hash changes from run to run)."""
    return random.Random(text).getrandbits(64)


def _bits(values: list[float]) -> float:
    return statistics.fmean(values) / math.log(2) / BYTES_PER_TOKEN


def _trials(name: str, rate: float, losses: dict[float, list[float]], draw: random.Random) -> list[dict[str, Any]]:
    centre = statistics.fmean(losses[0.5]) + draw.gauss(0.0, 0.01)
    width = 0.018 if name == "ngpt" else 0.036
    trials = []
    for step in range(-2, 3):
        diverged = name == "diff_transformer" and step == 2
        loss = INITIAL_LOSS if diverged else centre + width * step**2 + (0.02 * step if step > 0 else 0.0)
        trials.append({"lr": rate * 2.0**step, "loss": loss, "diverged": diverged, "horizon": 0.5})
    return trials


def _curve(losses: dict[float, list[float]], draw: random.Random) -> dict[str, list[float]]:
    """The trunk's training loss: from the uniform loss down, a little above the decayed horizons."""
    end, tokens = statistics.fmean(losses[1.0]), [round(TOKENS * k / 60) for k in range(1, 61)]
    level = [end + 0.06 + SLOPE * math.log(TOKENS / t) + 0.9 * math.exp(-t / 30_000) for t in tokens]
    decayed = [value - 0.06 * max(0.0, (t / TOKENS - 0.8) / 0.2) for t, value in zip(tokens, level, strict=True)]
    mean = [min(INITIAL_LOSS, value) + draw.gauss(0.0, 0.006) for value in decayed]
    return {"tokens": tokens, "loss": mean, "low": [v - 0.025 for v in mean], "high": [v + 0.025 for v in mean]}


def _ledger(name: str, hidden: int) -> list[dict[str, Any]]:
    kv = 32 if name == "palm" else 128
    projections = 64 * (128 + kv)
    core = 1.5 if name == "diff_transformer" else 1.0
    rows = [
        ("embedding", VOCABULARY * 64, 0, 0, 64),
        ("attention projections", 3 * projections, 6 * projections, 6 * projections, 3072),
        (
            "attention core",
            240 if name == "diff_transformer" else 0,
            3 * 2 * 4 * 64.5 * 32 * core,
            3 * 2 * 4 * 128 * 32 * core,
            3 * 5 * 4 * 64.5,
        ),
        ("gated MLP", 3 * 3 * 64 * hidden, 3 * 6 * 64 * hidden, 3 * 6 * 64 * hidden, 3 * 2 * hidden),
        ("norms", 448, 0, 0, 7 * 256 * (1.6 if name == "ngpt" else 1.0)),
        (
            "unembedding",
            0 if name == "palm" else VOCABULARY * 64,
            2 * 64 * VOCABULARY,
            2 * 64 * VOCABULARY,
            5 * VOCABULARY,
        ),
    ]
    names = ("mechanism", "parameters", "model", "hardware", "elementwise")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _own_settings(name: str) -> dict[str, list[Any]]:
    if name != "ngpt":
        return {}
    return {
        "weight_decay": [0.1, 0.0, "weights are renormalised after every step, so decay has nothing to act on"],
        "warmup": [0.03, 0.0, "normalised weights need no warm-up (the paper, section 2.6)"],
    }


def _spec_difference(name: str) -> list[list[Any]]:
    return {
        "llama": [],
        "palm": [
            ["blocks[*].residual", "PreNorm(norm=RMSNorm)", "Parallel(norm=LayerNorm, bias=False)"],
            ["blocks[*].mixer.kv_heads", 4, 1],
            ["blocks[*].mlp.hidden", 172, 216],
            ["head.tied", False, True],
        ],
        "diff_transformer": [["blocks[*].mixer", "Attention(heads=4)", "DiffAttention(heads=2, depth=i)"]],
        "ngpt": [
            ["blocks[*].residual", "PreNorm(norm=RMSNorm)", "Normalized(alpha=0.33)"],
            ["blocks[*].mixer.query_key_norm", None, "UnitNorm(scale=learned)"],
            ["norm", "RMSNorm()", None],
            ["head.token_scale", False, True],
        ],
    }[name]


def _minimality(name: str, body: int, flops: float) -> dict[str, Any]:
    added = {
        "llama": ([], []),
        "palm": (["parallel residual", "multi-query attention", "tied head"], ["second norm of each block"]),
        "diff_transformer": (["second attention map", "lambda vectors", "head norm"], []),
        "ngpt": (["unit norms on q, k and branches", "eigen learning rates", "head scale", "weight projection"],
                 ["RMSNorm gains", "final norm", "weight decay", "warm-up"]),
    }[name]  # fmt: skip
    base = ARMS["llama"]
    return {
        "parameters": body - base[4], "settings": {"llama": 0, "palm": 0, "diff_transformer": 1, "ngpt": 4}[name],
        "flops": flops / base[5], "state": 0.25 if name == "palm" else 1.0, "lines": 60,
        "parts_added": added[0], "parts_removed": added[1],
    }  # fmt: skip


def _comparison(name: str, arms: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    arm, base = arms[name], arms["llama"]
    paired = [v - b for v, b in zip(arm["loss"]["seeds"], base["loss"]["seeds"], strict=True)]
    delta, ci = statistics.fmean(paired), _interval(paired)
    slope = SLOPE * (1.06 if name == "ngpt" else 1.0)
    in_flops, on_clock = base["flops_per_token"] / arm["flops_per_token"], arm["throughput"]["ratio"]
    s_tok = _speedup(delta, ci, slope, 1.0)
    s_flop, s_time = _speedup(delta, ci, slope, in_flops), _speedup(delta, ci, slope, on_clock)
    s_time["ci95"] = [s_time["ci95"][0] * 0.985, s_time["ci95"][1] * 1.015]
    verdict = {"palm": "inconclusive", "diff_transformer": "mixed", "ngpt": "wins"}[name]
    return {
        "variant": name, "baseline": "llama", "delta_nats": delta, "ci95": ci, "n": len(SEEDS),
        "ci95_documents": [ci[0] - 0.003, ci[1] + 0.003], "welch_ci95": [ci[0] - 0.012, ci[1] + 0.012],
        "ci95_simultaneous": [ci[0] - 0.006, ci[1] + 0.006], "equivalent_ci90": s_tok["ci95"],
        "p_value": 0.21 if name == "palm" else 0.0004, "p_holm": 0.21 if name == "palm" else 0.0012,
        "p_improvement": statistics.fmean([float(v < b) for v in arm["loss"]["seeds"] for b in base["loss"]["seeds"]]),
        "bits_per_byte_delta": arm["bits_per_byte"] - base["bits_per_byte"],
        "s_tok": s_tok, "s_flop": s_flop, "s_time": s_time, "verdict": verdict, "grade": "D", "primary": "iso_token",
        "saved": {"tokens": 1 - 1 / s_tok["value"], "flops": 1 - 1 / s_flop["value"], "time": 1 - 1 / s_time["value"]},
        "s_targets": [_target(share, arms, name, slope, draw) for share in FRACTIONS],
        "product": f"{s_tok['value']:.2f}x fewer tokens, {on_clock:.2f}x throughput => {s_time['value']:.2f}x",
        "slope": {"baseline": SLOPE, "variant": SLOPE * (1.12 if name == "ngpt" else 1.0), "used": slope},
        "caps": [], "notes": [], "would_change": ["three sizes over 8x FLOPs"],
        "n_needed": 31 if verdict == "inconclusive" else None,
        "sentence": _sentence(name, s_tok["value"], s_time["value"]),
    }  # fmt: skip


def _speedup(delta: float, ci: list[float], slope: float, factor: float) -> dict[str, Any]:
    low, high = sorted(math.exp(-end / slope) * factor for end in ci)
    return {"value": math.exp(-delta / slope) * factor, "ci95": [low, high], "censored": False}


def _target(share: float, arms: dict[str, Any], name: str, slope: float, draw: random.Random) -> dict[str, Any]:
    at = str(share)
    pairs = zip(
        arms[name]["horizons"][at]["loss"]["seeds"], arms["llama"]["horizons"][at]["loss"]["seeds"], strict=True
    )
    paired = [v - b for v, b in pairs]
    one = _speedup(statistics.fmean(paired), _interval(paired), slope, 1.0)
    return {"fraction": share, "value": one["value"], "ci95": one["ci95"]}


def _sentence(name: str, tokens: float, time: float) -> str:
    return {
        "palm": "palm cannot be told apart from llama with 5 seeds; about 31 would be needed.",
        "diff_transformer": f"diff_transformer is mixed: tokens {tokens:.2f}x, but {time:.2f}x on the clock.",
        "ngpt": f"ngpt needs {tokens:.2f}x fewer tokens than llama, which is {time:.2f}x on this machine's clock.",
    }[name]


def _data() -> dict[str, Any]:
    return {
        "name": "standard library", "source": "source text of the standard library of Python 3.11.2",
        "fingerprint": "5c8a" * 16, "bytes": 11_934_212, "train_tokens": 3_610_112, "heldout_tokens": 192_004,
        "documents": 1_187, "heldout_documents": 61, "duplicates_dropped": 14, "overlap_13gram": 0.41, "epochs": 0.17,
        "tokenizer": "sentencepiece", "tokenizer_fingerprint": "b71e" * 16, "vocab": VOCABULARY,
        "bytes_per_token": BYTES_PER_TOKEN, "leak": "attention masked at document boundaries",
    }  # fmt: skip


def _held_equal() -> list[dict[str, str]]:
    rows = [
        (
            "training tokens and their order",
            "a pure function of (data seed, step, row)",
            "9d1e6f1f5c1c0a7e6f2b1d3c4a5968778695a4b3c2d1e0f9081726354453627a",
        ),
        ("tokenizer and vocabulary", "identical", "b71e" * 16),
        ("held-out documents and windows", "identical, disjoint windows of 128", "77c0" * 16),
        ("numeric policy", "fp32 weights, gradients and optimiser state", "float32"),
        ("optimiser", "AdamW, betas 0.9 and 0.95, clip 1.0, WSD 3 % / 20 %", "settings 41d2aa90"),
        ("tuning effort", "five learning rates an arm, seed 0 only", "5 trials each"),
        ("body parameters", "within 1 % of the baseline", "largest gap 0.22 %"),
    ]
    return [{"what": what, "rule": rule, "evidence": evidence} for what, rule, evidence in rows]

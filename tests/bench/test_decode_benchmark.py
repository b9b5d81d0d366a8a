"""The decoding benchmark: what is generated, counted and worked out, at sizes that take no time."""

import json
import math
from typing import Any

import pytest
import torch

import windtunnel as wt
from windtunnel.bench import decode, decode_page, decode_tables
from windtunnel.bench.decode_plan import Plan
from windtunnel.bench.decoder import TOLERANCE, Decoder, Generation, agreed, corpus_tokens
from windtunnel.claims import Filed
from windtunnel.claims.benches import far_token, token_latency
from windtunnel.errors import InputError, WorkError
from windtunnel.inference import states
from windtunnel.ledger import experts_touched

SIZES: dict[str, Any] = {"vocab": 40, "layers": 3, "width": 32, "context": 64}
WINDOW = {"griffin": {"window": 7}}
RECIPES = ("llama", "mqa_transformer", "griffin", "hawk")
PLAN = Plan(
    prompts=(5, 12), batches=(1, 3), tokens=4, rounds=2, threads=1, positions=(20, 50), requests=5, drafts=3, chunk=8
)


def spec(name: str, **settings: Any) -> Any:
    return wt.recipes.get(name)(**{**SIZES, **WINDOW.get(name, {}), **settings})


def decoder(name: str, **settings: Any) -> Decoder:
    return Decoder.of(name, spec(name, **settings), chunk=8)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    threads = torch.get_num_threads()
    found = decode.run({name: spec(name) for name in RECIPES}, PLAN)
    assert torch.get_num_threads() == threads
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_generation_is_that_of_full_passes(name: str) -> None:
    arm = decoder(name)
    text = corpus_tokens(40, 22)
    prompts = [text[:11], text[11:]]
    batch = arm.reserve(2, 16)
    for _ in range(2):  # the second time on rows that have been used
        found = arm.generate(batch, prompts, 5)
        assert (len(found.between), [len(row) for row in found.tokens]) == (4, [5, 5])
        for prompt, made in zip(prompts, found.tokens, strict=True):
            with torch.inference_mode():
                logits = arm.model(torch.tensor([[*prompt, *made[:-1]]])).logits
            assert logits[0, 10:].argmax(-1).tolist() == made
    assert arm.whole(prompts) == [made[0] for made in found.tokens]


@pytest.mark.parametrize("name", RECIPES)
@torch.inference_mode()
def test_a_replay_reads_the_text_whatever_was_drafted(name: str) -> None:
    """Drafts that hold and drafts that do not: afterwards the state is that of the text alone."""
    arm, text = decoder(name), [1, 2, 3, 4, 5, 1, 2, 3, 4, 6, 1, 2, 3, 4, 5, 7, 8]
    batch, plain = arm.reserve(1, 24), arm.reserve(1, 24)
    found = arm.replay(batch, text, 7, 3)
    # 1 2 drafts 3 4 5, of which 3 4 hold, then 6; 6 is new; 1 drafts 2 3 4, which hold, then 5; 3 4 5 drafts 1: 7; 8.
    assert (found.passes, found.drafted, found.kept) == (5, 7, 5)
    plain.read(0, text[:-1])
    assert batch.lengths == plain.lengths
    torch.testing.assert_close(batch.feed(0, [[text[-1]]]), plain.feed(0, [[text[-1]]]), rtol=0, atol=1e-5)
    without = arm.replay(batch, text, 7, 0)
    assert (without.passes, without.drafted, without.kept) == (10, 0, 0)


def test_drafts_agree_from_their_beginning() -> None:
    assert [agreed(draft, [1, 2, 3]) for draft in ([], [2], [1, 3], [1, 2, 3, 4][:3])] == [0, 0, 1, 3]


@pytest.mark.parametrize("name", RECIPES)
def test_decoding_is_checked_past_the_windows(name: str) -> None:
    arm = decoder(name)
    length = arm.gate_length(10)
    assert length == (24 if name == "griffin" else 10)  # 3 windows of 7 + itself
    assert 0 < arm.error(length, 3) < 1e-5


@pytest.mark.parametrize("name", ["llama", "griffin"])
def test_a_cache_of_fewer_bits_is_counted_and_checked_by_its_own_precision(name: str) -> None:
    arm = Decoder.of(name, spec(name), chunk=8, cache_dtype="bfloat16")
    assert arm.state_bytes(10) == arm.model.state_bytes(10, 2) < decoder(name).state_bytes(10)
    assert states.state_bytes(arm.reserve(1, 20).state) < states.state_bytes(decoder(name).reserve(1, 20).state)
    assert TOLERANCE < arm.error(24, 3) < arm.tolerance == 8 * 2**-7


@pytest.mark.parametrize("name", ["hawk", "griffin"])
def test_a_state_that_is_not_kept_is_not_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "put", lambda *given: None)
    with pytest.raises(WorkError, match=f"{name}: decoding differs from the full pass"):
        decoder(name).error(20, 3)


def test_bytes_of_weights() -> None:
    tied, free = decoder("llama", tied=True), decoder("llama", tied=False)
    total = sum(parameter.numel() for parameter in tied.model.parameters())
    for rows in (1, 16):
        assert tied.weight_bytes(rows) == 4 * total  # the table is read by the head
        assert free.weight_bytes(rows) == 4 * (total + rows * 32)  # one more table, of which some rows are looked up


def test_bytes_of_experts_are_of_those_that_are_met() -> None:
    arm = decoder("switch", experts=8)
    layers = [each for each in arm.model.modules() if getattr(each, "idle_parameters", int)()]
    one = sum(each.idle_parameters() for each in layers) / 7
    assert one > 0
    read = [arm.weight_bytes(rows) for rows in (1, 2, 10_000)]
    assert read[1] - read[0] == pytest.approx(4 * one * (experts_touched(8, 1, 2) - 1), abs=4 * 32)
    assert read[1] < 4 * sum(parameter.numel() for parameter in arm.model.parameters())


def test_operators_of_a_step_grow_with_the_layers() -> None:
    one, two, three = (decoder("llama", layers=layers).operations() for layers in (1, 2, 3))
    assert two - one == three - two > 20


def test_figures_of_a_cell() -> None:
    """Two rounds of two rows: 0.5 s and 2 s to the first token, three tokens after it, a floor of 10 ms and 40 ms."""
    tokens = [[1, 2, 3, 4]] * 2
    found = [Generation(0.5, [0.1, 0.2, 0.2], tokens), Generation(2.0, [0.8, 0.9, 0.3], tokens)]
    made = decode.figures(found, step_bytes=4e6, speeds=[4e8, 1e8], rows=2, prompt=10)
    assert made["first"]["value"] == pytest.approx(1.0)
    assert made["prefill"]["value"] == pytest.approx(20.0)
    assert made["medians"] == [0.2, 0.8]
    assert made["median"]["value"] == pytest.approx(0.4)
    assert made["decoding"]["value"] == pytest.approx(5.0)
    assert made["throughput"]["value"] == pytest.approx(math.sqrt(8 / 1.0 * 8 / 4.0))
    assert made["between"]["p50"] == pytest.approx(0.25)
    assert made["between"]["p90"] == pytest.approx(0.85)
    assert made["floor_seconds"] == pytest.approx(4e6 / 2e8)
    assert made["bandwidth_use"]["value"] == pytest.approx(0.05)
    assert made["bandwidth_use"]["low"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.9, 0.8, 0.7], 10.0),
        ([2.0, 0.5, 0.4], math.sqrt(10 * 40)),
        ([1.5, 1.2, 1.1], None),
        ([0.9, 1.2, 1.1], None),
        ([0.9, 4.0, 0.25], math.sqrt(40 * 160)),
    ],
)
def test_crossings_are_interpolated_on_logarithms(ratios: list[float], expected: float | None) -> None:
    found = decode.crossing([10, 40, 160], ratios)
    assert found == (None if expected is None else pytest.approx(expected))


def test_crossing_of_bytes() -> None:
    llama, hawk, mqa = decoder("llama"), decoder("hawk"), decoder("mqa_transformer")
    for rows in (1, 4):
        at = decode.bytes_crossing(llama, hawk, rows)
        assert at is not None
        step = [[arm.weight_bytes(rows) + rows * arm.state_bytes(n) for arm in (llama, hawk)] for n in (at - 1, at)]
        assert step[0][0] <= step[0][1]
        assert step[1][0] >= step[1][1]
    assert decode.bytes_crossing(llama, mqa, 1) == 1
    assert decode.bytes_crossing(mqa, llama, 1) is None


def test_everything_is_there(result: dict[str, Any]) -> None:
    found = json.loads(json.dumps(result))
    assert [(cell["prompt"], cell["batch"]) for cell in found["cells"]] == [(5, 1), (5, 3), (12, 1), (12, 3)]
    for cell in found["cells"]:
        assert [arm["label"] for arm in cell["arms"]] == list(RECIPES)
        assert cell["arms"][0]["over_baseline"] == {"value": 1.0, "low": 1.0, "high": 1.0}
        assert all(len(arm["medians"]) == PLAN.rounds for arm in cell["arms"])
    assert [each["label"] for each in found["positions"]] == ["llama", "griffin", "hawk"]
    assert [each["fixed"] for each in found["positions"]] == [False, True, True]
    assert [each["same"] for each in found["serving"]] == [1.0] * 4
    assert [(each["label"], each["batch"]) for each in found["crossovers"]] == [
        (label, rows) for rows in PLAN.batches for label in RECIPES[1:]
    ]
    held = {(each["label"], each["prompt"]): each for each in found["states"]}
    assert held["hawk", 5]["read"] == held["hawk", 12]["read"] == held["hawk", 5]["allocated"]
    assert held["llama", 12]["read"] == 12 * 3 * 2 * 32 * 4
    latencies = list(token_latency("griffin", "llama", 12)(Filed("decode.json", found)))
    assert [one.value for one in latencies] == [
        cell["arms"][2]["over_baseline"]["value"] for cell in found["cells"] if cell["prompt"] == 12
    ]
    assert not list(token_latency("griffin", "llama", 13)(Filed("decode.json", found)))
    (far,) = far_token("hawk")(Filed("decode.json", found))
    assert far.value == found["positions"][2]["ratio"]["value"]
    for cell in found["cells"]:
        for arm in cell["arms"]:
            assert arm["allocated"] == held[arm["label"], cell["prompt"]]["allocated"]


def test_tables(result: dict[str, Any]) -> None:
    made = decode_tables.tables(result)
    assert [len(table.rows) for table in made] == [16, 16, 16, 8, 6, 3, 4, 4]
    for table in made:
        assert all(len(row) == len(table.columns) for row in table.rows)
    short = decode_tables.tables({**result, "positions": [], "settings": {**result["settings"], "positions": ()}})
    assert len(short) == len(made) - 1


def test_crossings_in_words() -> None:
    each = {"label": "b", "batch": 1, "measured": 20.4, "rounds": [10.0, None, 33.0], "bytes": None}
    given = {"arms": [{"label": "a"}], "settings": {"prompts": [10, 40]}, "crossovers": [each]}
    assert decode_tables.crossovers(given).rows == [("b", "1", "20", "all from 10 to none up to 40", "never")]


def test_the_page_holds_every_part_and_loads_nothing(result: dict[str, Any]) -> None:
    page = decode_page.render(result)
    for key in ("between", "throughput", "first", "state", "positions", "serving", "lookup", "method"):
        assert f'<section id="{key}"' in page
    for key in ("between-3", "throughput-12", "first-1", "state-bytes", "ratio-far", "ratio-together", "ratio-drafts"):
        assert f'id="{key}"' in page
    assert "src=" not in page
    assert page == decode_page.render(result)


def test_one_round_has_no_interval() -> None:
    once = decode.run({"hawk": spec("hawk")}, Plan(**{**PLAN.__dict__, "rounds": 1, "positions": ()}))
    assert math.isinf(once["cells"][0]["arms"][0]["first"]["high"])
    assert "inf" not in decode_page.render(once).replace("info", "").replace("inferred", "")
    assert "[" not in decode_tables.times(once).rows[0][3]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompts": (8, 4)}, "prompts: expected growing whole numbers of at least 1, got 8,4"),
        ({"batches": ()}, "batches: expected growing whole numbers of at least 1, got none"),
        ({"tokens": 1}, "tokens: expected at least 2, got 1"),
        ({"cache_dtype": "int8"}, "cache_dtype: expected float32, bfloat16 or float16, got 'int8'"),
        ({"positions": (5,)}, "positions: expected a near and a far one, got 5"),
    ],
)
def test_plans_that_measure_nothing(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan(**given)


def test_tables_of_positions_must_reach() -> None:
    with pytest.raises(InputError, match="prompts: 12 and 4 new tokens are 16, and gpt3 has a table of 15 positions"):
        decode.run({"gpt3": spec("gpt3", context=15)}, PLAN)

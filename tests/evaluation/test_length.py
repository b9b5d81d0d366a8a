"""Reading past the trained length: a full pass for every target, angles by a loop, entropies by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import windtunnel as wt
from tests.evaluation.conftest import END, run_folder, text_of, tiny, token_nats
from windtunnel import recipes
from windtunnel.errors import InputError
from windtunnel.evaluation.attention_entropy import attention_entropy, entropy
from windtunnel.evaluation.evaluate import evaluate
from windtunnel.evaluation.length import Length
from windtunnel.evaluation.page import render, tables
from windtunnel.evaluation.registry import parse_evaluations
from windtunnel.evaluation.subject import Subject
from windtunnel.evaluation.unseen_angles import unseen_share
from windtunnel.runs import find

SHORT = Length(longest=2, maps=1)


def method(figures, name="as it is"):
    return {point["multiple"]: point for point in next(m for m in figures["methods"] if m["method"] == name)["points"]}


def test_against_one_pass_a_target(ask, draw):
    model, texts = tiny(), draw(33, 40)
    figures = ask(SHORT, model, text_of(texts))
    for multiple, point in method(figures).items():
        length = round(16 * multiple)
        last, whole = [], []
        for text in texts:
            ids = [END, *text][:33]
            starts = [0, *range(32 % length, 32, length)] if 32 % length else range(0, 32, length)
            for start in starts:
                end = min(start + length, 32) if start or not 32 % length else 32 % length
                nats = token_nats(model, ids[start : end + 1])
                whole += nats
                last += nats[-4:] if end == 32 else []
        assert point["last"]["value"] == pytest.approx(np.mean(last), rel=1e-5)
        assert point["disjoint"]["value"] == pytest.approx(np.mean(whole), rel=1e-5)
    points = method(figures)
    assert points[1.0]["excess"]["value"] == 0
    assert points[2.0]["excess"]["value"] == pytest.approx(points[2.0]["last"]["value"] - points[1.0]["last"]["value"])


def test_the_interval_is_that_of_paired_documents(ask, draw):
    texts = draw(32, 32, 32)
    model = tiny()
    point = method(ask(SHORT, model, text_of(texts)))[2.0]
    pairs = []
    for text in texts:
        ids = [END, *text]
        pairs.append(np.mean(token_nats(model, ids[:33])[-4:]) - np.mean(token_nats(model, ids[16:33])[-4:]))
    low, high = stats.t.interval(0.95, 2, np.mean(pairs), stats.sem(pairs))
    assert (point["excess"]["low"], point["excess"]["high"]) == pytest.approx((low, high), rel=1e-4)


@pytest.mark.parametrize("name", ["mpt_alibi", "hawk", "griffin", "longformer", "mamba", "ngpt", "diff_transformer"])
def test_every_kind_of_model_reads_on(ask, draw, name):
    changes = {"mamba": {"heads": None}, "hawk": {"heads": None}, "griffin": {"layers": 3}}.get(name, {})
    changes = {key: value for key, value in changes.items() if value is not None}
    model = wt.build(recipes.get(name)(**{"layers": 2, "width": 16, "vocab": 257, "context": 16, **changes}), seed=0)
    figures = ask(Length(longest=4, maps=1, scalings=("all",)), model, text_of(draw(64, 64)))
    assert all(math.isfinite(point["last"]["value"]) for m in figures["methods"] for point in m["points"])
    assert len(figures["methods"]) == (6 if model.spec.rotates else 1)


def test_windows_out_of_sight_change_nothing(ask, draw):
    """Two layers of windows of 5 see 9 tokens: fewer than there are before any target, whatever the length."""
    plain = tiny()
    blocks = tuple(block.replace(mixer=block.mixer.replace(window=5)) for block in plain.spec.blocks)
    model = wt.build(plain.spec.replace(blocks=blocks), seed=0)
    model.load_state_dict(plain.state_dict())
    figures = ask(SHORT, model, text_of(draw(40, 40)))
    assert [point["excess"]["value"] for point in method(figures).values()] == pytest.approx([0] * 4, abs=1e-6)
    assert figures["effective"] == {"as it is": 2.0}


def test_scalings_read_as_their_specs_do(ask, draw):
    model, text = tiny(), text_of(draw(32, 32))
    figures = ask(Length(longest=2, scalings=("linear", "yarn"), maps=0), model, text)
    for name in ("linear", "yarn"):
        assert method(figures, name)[1.0]["last"]["value"] == pytest.approx(method(figures)[1.0]["last"]["value"])
        other = model.spec.extended(name, 32, 16).build()
        other.load_state_dict(model.state_dict())
        nats = [token_nats(other, [END, *document])[-4:] for document in draw(32, 32)]
        assert method(figures, name)[2.0]["last"]["value"] == pytest.approx(np.mean(nats), rel=1e-5)
        assert method(figures, name)[2.0]["last"]["value"] != method(figures)[2.0]["last"]["value"]


def test_interpolation_shows_no_new_angle():
    spec = recipes.get("llama")(layers=1, width=16, heads=2, vocab=257, context=16)
    assert unseen_share(spec, spec, 16, 16) == 0
    assert unseen_share(spec, spec.extended("linear", 64, 16), 16, 64) == 0
    plain = unseen_share(spec, spec, 16, 64)
    assert plain > unseen_share(spec, spec.extended("yarn", 64, 16), 16, 64)
    assert plain > unseen_share(spec, spec.extended("ntk", 64, 16), 16, 64) > 0
    convolved = recipes.get("llama")(layers=1, width=16, heads=2, vocab=257, context=16, convolution=4)
    assert unseen_share(convolved, convolved, 16, 64) == plain
    biased = recipes.get("mpt_alibi")(layers=1, width=16, vocab=257, context=16)
    assert unseen_share(biased, biased, 16, 64) is None


def test_unseen_angles_against_a_loop():
    spec = recipes.get("llama")(layers=1, width=16, heads=2, vocab=257, context=16)
    new = []
    for pair in range(4):
        theta = 10_000.0 ** (-2 * pair / 8)
        for distance in range(40):
            seen = 16 * theta >= 2 * math.pi or math.fmod(distance * theta, 2 * math.pi) < 16 * theta
            new.append(not seen)
    assert unseen_share(spec, spec, 16, 40) == pytest.approx(np.mean(new))


def test_a_window_hides_far_angles():
    spec = recipes.get("griffin")(layers=3, width=16, vocab=257, context=16, window=8)
    assert unseen_share(spec, spec, 16, 64) == 0


def test_entropy_of_known_maps():
    maps = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, -0.5, 0.0, 0.0]])
    assert entropy(maps).tolist() == pytest.approx([math.log(4), 0.0, math.log(2)])


def test_even_attention_has_the_logarithm_of_its_keys():
    model = tiny()
    for block in model.blocks.values():
        torch.nn.init.zeros_(block.mixer.q.weight)
    found = attention_entropy(model, torch.randint(0, 257, (2, 9)))
    assert found.tolist() == pytest.approx([math.log(place + 1) for place in range(9)], abs=1e-6)
    hawk = wt.build(recipes.get("hawk")(layers=1, width=16, vocab=9, context=8))
    assert attention_entropy(hawk, torch.zeros(1, 4, dtype=torch.int64)) is None


@pytest.mark.parametrize(("name", "asked", "said"), [
    ("gpt3", SHORT, "its positions end at 16, and length asks for 32 tokens"),
    ("llama", Length(longest=8), "no document has 128 tokens, the longest has 40; length:longest=NUMBER"),
    ("llama", Length(base=3), "a trained length of 3 has no last quarter"),
])  # fmt: skip
def test_lengths_that_cannot_be_read_are_refused(ask, draw, name, asked, said):
    with pytest.raises(InputError, match=said):
        ask(asked, tiny(name), text_of(draw(40)))


def test_settings_of_several_values():
    (found,) = parse_evaluations("length:scalings=yarn+linear,longest=2,multiples=1+2")
    assert (found.scalings, found.multiples) == (("yarn", "linear"), (1.0, 2.0))
    with pytest.raises(InputError, match="did you mean yarn"):
        Length(scalings=("yarm",))


def test_zero_shot_and_extended_in_one_table(tmp_path, draw):
    text, model = text_of(draw(40, 40, 40)), tiny()
    longer = wt.build(model.spec.extended("yarn", 32), seed=0)
    longer.load_state_dict(model.state_dict())
    plain = run_folder(tmp_path / "plain", model)
    other = run_folder(tmp_path / "longer", longer, context=32, extended={"trained": 16, "method": "yarn"})
    cpu = torch.device("cpu")
    subjects = [Subject(folder.name, find(folder), cpu, (), text) for folder in (plain, other)]
    answers = evaluate(subjects, [Length(longest=2, scalings=("yarn",), maps=1)])
    (table,) = tables(answers)
    named = ["plain, as it is", "plain, yarn", "longer"]
    assert [row[:2] for row in table.rows] == [[name, k] for name in named for k in ("1", "1.25", "1.5", "2")]
    zero, tuned = (arm.figures["methods"][-1]["points"][-1] for arm in answers.arms(answers.evaluations[0]))
    assert zero["last"] == pytest.approx(tuned["last"])
    shown = render(answers)
    assert "extended" in shown
    assert "angles unseen" in shown

"""Synthetic tasks: solved by hand from their tokens alone; items are functions of their number; splits differ."""

import hashlib
import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.data.sampler import batch_hash
from windtunnel.data.tasks import TASKS, TaskStream, held_out, parse_task
from windtunnel.data.tasks.base import Draws
from windtunnel.data.tasks.stream import is_held_out
from windtunnel.errors import InputError
from windtunnel.spec import from_json

# Off their defaults, small, and odd where they may be.
SMALL = {
    "mqar": ["mqar:vocab=32,length=30,pairs=5", "mqar:vocab=20,length=40,pairs=3,fill=random,passes=2,power=1"],
    "induction": ["induction:vocab=9,length=17", "induction:vocab=12,length=30,probes=3"],
    "selective_copying": ["selective_copying:symbols=5,length=13,items=4"],
    "copying": ["copying:symbols=6,shortest=1,longest=7"],
    "lookup": ["lookup:symbols=7,length=15,gram=2,answer=3", "lookup:symbols=12,length=11,gram=1,answer=1,key=first"],
    "phonebook": ["phonebook:entries=5,fewest=1"],
    "needles": ["needles:length=31,needles=4,asked=3,keys=7,digits=2", "needles:length=13,needles=2,noise=3,keys=5"],
    "noisy_recall": ["noisy_recall:vocab=10,length=26,noise=0.4"],
    "fuzzy_recall": ["fuzzy_recall:vocab=12,length=61,pairs=4"],
    "memorisation": ["memorisation:vocab=24,length=12,book=3"],
    "state_tracking": [f"state_tracking:group={group},length=11" for group in ("parity", "s3", "a5", "s5")],
}
EVERY = [text for texts in SMALL.values() for text in texts]


def test_every_task_is_tried():
    assert set(SMALL) == set(TASKS)


# --- Solvers, from the tokens alone: {place: answer}.


def solve_mqar(tokens, task):
    value, answers = {}, {}
    for place in range(0, len(tokens) - 1, 2):
        key = tokens[place]
        if place < 2 * task.pairs * task.passes:
            value[key] = tokens[place + 1]
        elif key in value:
            answers[place] = value[key]
    return answers


def solve_needles(tokens, task):
    """A key's number stands after its first occurrence; the question begins after whole places of the text."""
    text = task.length - task.length % (1 + task.digits)
    answers = {}
    for start in range(text, len(tokens), 1 + task.digits):
        found = tokens.index(tokens[start])
        assert found < text
        answers |= {start + k: tokens[found + 1 + k] for k in range(task.digits)}
    return answers


def solve_induction(tokens, task):
    body = len(tokens) - task.probes
    return {place: tokens[tokens.index(tokens[place]) + 1] for place in range(body, len(tokens))}


def solve_selective_copying(tokens, task):
    return dict(enumerate((token for token in tokens if 0 < token <= task.symbols), start=task.length))


def solve_copying(tokens, task):
    bar = tokens.index(task.symbols + 1)
    return dict(enumerate([*tokens[1:bar], task.symbols + 2], start=bar))


def solve_lookup(tokens, task):
    bars = [place for place, token in enumerate(tokens) if token == task.symbols + 1]
    if task.key == "first":
        gram, text, start = tokens[1 : bars[0]], tokens[bars[0] + 1 : bars[1]], bars[1]
    else:
        text, gram = tokens[1 : bars[0]], tokens[bars[0] + 1 : bars[0] + 1 + task.gram]
        start = bars[0] + task.gram
    found = [place for place in range(len(text)) if text[place : place + task.gram] == gram]
    assert len(found) == 1
    after = found[0] + task.gram
    return dict(enumerate(text[after : after + task.answer], start=start))


def solve_phonebook(tokens, task):
    letters = "abcdefghijklmnopqrst0123456789:;?_"
    text = "".join(letters[token] for token in tokens).rstrip("_")
    book, _, question = text.partition("?")
    entries = dict(line.split(":") for line in book.strip(";").split(";"))
    assert len(entries) == book.count(";")
    number = entries[question[:3]]
    assert question[3:] == ":" + number[:3]
    return {len(text) - 4 + place: letters.index(digit) for place, digit in enumerate(number)}


def solve_noisy_recall(tokens, task):
    value, answers = {}, {}
    for place in range(0, len(tokens), 2):
        key = tokens[place]
        if key < task.vocab:
            if key in value:
                answers[place] = value[key]
            value[key] = tokens[place + 1]
    return answers


def solve_fuzzy_recall(tokens, task):
    half = task.vocab // 2
    runs = [list(run) for _, run in itertools.groupby(tokens, lambda t: -1 if t == task.vocab else t < half)]
    runs = [run for run in runs if run[0] != task.vocab]
    value, answers, place = {}, {}, 0
    for key, shown in zip(runs[::2], runs[1::2], strict=True):
        place += len(key)
        if len(key) == 3 and tuple(key) in value:
            answers |= dict(enumerate(value[tuple(key)], start=place - 1))
        assert value.setdefault(tuple(key), shown) == shown
        place += len(shown)
    return answers


def solve_state_tracking(tokens, task):
    points = {"parity": 2, "s3": 3, "a5": 5, "s5": 5}[task.group]
    elements = list(itertools.permutations(range(points)))
    if task.group == "a5":  # even: an even number of points is moved, counted by cycles
        elements = [each for each in elements if round(np.linalg.det(np.eye(5)[list(each)])) == 1]
    state, answers = tuple(range(points)), {}
    for place, token in enumerate(tokens):
        state = tuple(elements[token][point] for point in state)
        answers[place] = elements.index(state)
    return answers


SOLVERS = {name.removeprefix("solve_"): solver for name, solver in list(globals().items()) if name.startswith("solve_")}


@pytest.mark.parametrize("text", [*EVERY, *TASKS])
def test_a_hand_written_solver_answers_everything(text):
    task = parse_task(text)
    items = TaskStream(task, "train", 1).items(range(64))
    if task.name == "memorisation":  # nothing in an item tells: what training showed does
        facts = dict(zip(items.tokens[:, ::2].ravel(), items.targets[:, 1::2].ravel(), strict=True))
        items = held_out(task, 64)
        answers = [{1 + 2 * i: facts[key] for i, key in enumerate(row[::2])} for row in items.tokens]
    else:
        answers = [SOLVERS[task.name](row.tolist(), task) for row in items.tokens]
    expected = [{place: row[place] for place in np.flatnonzero(row != -1)} for row in items.targets]
    wrong = sum(given != wanted for given, wanted in zip(answers, expected, strict=True))
    assert wrong == 0
    assert all(expected)
    assert items.tokens.shape == (64, task.span)
    assert 0 <= items.tokens.min() <= items.tokens.max() < task.ids
    assert items.targets.max() < task.ids


@pytest.mark.parametrize("text", EVERY)
def test_splits_share_no_item(text):
    task = parse_task(text)
    train = {row.tobytes() for row in TaskStream(task, "train", 0).window(range(600))}
    test = {row.tobytes() for row in np.concatenate(held_out(task, 300), 1)}
    assert not train & test
    assert is_held_out(held_out(task, 300)).all()
    assert len(test) > 64


@pytest.mark.parametrize("text", EVERY)
def test_an_item_depends_on_its_number_alone(text):
    stream = TaskStream(parse_task(text), "train", 3)
    whole = stream.window(range(5, 41))
    assert np.array_equal(whole[7:9], stream.window(range(12, 14)))
    assert np.array_equal(whole[::3], stream.window(range(5, 41, 3)))
    assert not np.array_equal(whole, TaskStream(parse_task(text), "train", 4).window(range(5, 41)))
    batch = stream.read(range(5, 41))
    assert batch.documents is None
    assert np.array_equal(torch.cat((batch.tokens, batch.targets), 1).numpy(), whole)


def golden(text):
    stream = TaskStream(parse_task(text), "train", 1)
    return hashlib.sha256(stream.window(range(40)).astype("<i4").tobytes()).hexdigest()[:16]


GOLDEN = {
    "mqar:vocab=32,length=30,pairs=5": "956e985e958cadde",
    "mqar:vocab=20,length=40,pairs=3,fill=random,passes=2,power=1": "0080ebde5c206d87",
    "induction:vocab=9,length=17": "4621bf168bb225fb",
    "induction:vocab=12,length=30,probes=3": "cfd3b83bebb9cb94",
    "selective_copying:symbols=5,length=13,items=4": "c719ae4209421b66",
    "copying:symbols=6,shortest=1,longest=7": "c058acb2f3084031",
    "lookup:symbols=7,length=15,gram=2,answer=3": "8ec7e25b35100727",
    "lookup:symbols=12,length=11,gram=1,answer=1,key=first": "e4bc486b2c8f18b9",
    "phonebook:entries=5,fewest=1": "d7b0d26d009eb518",
    "needles:length=31,needles=4,asked=3,keys=7,digits=2": "d910ed5d68c07562",
    "needles:length=13,needles=2,noise=3,keys=5": "726f3d23d0b94c10",
    "noisy_recall:vocab=10,length=26,noise=0.4": "192dfdeef3dafd73",
    "fuzzy_recall:vocab=12,length=61,pairs=4": "23c1cec20e67f4ce",
    "memorisation:vocab=24,length=12,book=3": "5a766fccffe454d5",
    "state_tracking:group=parity,length=11": "6e43e918a60c96af",
    "state_tracking:group=s3,length=11": "636f0e29091ae9ab",
    "state_tracking:group=a5,length=11": "ab100b7b0e4f5e39",
    "state_tracking:group=s5,length=11": "d8b4e75b7fc33b31",
}


@pytest.mark.parametrize("text", EVERY)
def test_items_never_change(text):
    assert golden(text) == GOLDEN[text]


@pytest.mark.parametrize("text", [text for text in EVERY if not text.startswith("memorisation")])
def test_chance_is_what_guessing_gives(text):
    """No answer is much commoner than chance says, over all places alike."""
    task = parse_task(text)
    items = TaskStream(task, "train", 0).items(range(1500))
    answers = items.targets[items.answers]
    if task.name == "copying":
        answers = answers[answers != task.symbols + 2]  # the stop
    common = Counter(answers.tolist()).most_common(1)[0][1] / len(answers)
    spread = math.sqrt(common / len(answers)) * 4
    assert common - spread < task.chance * 1.6
    assert task.guess >= task.chance


@pytest.mark.parametrize("text", [*EVERY, *TASKS])
def test_the_ladder_holds_and_fits_the_model(text):
    task = parse_task(text)
    steps = task.ladder()
    assert len(set(steps)) == len(steps)
    assert all(step != task and step.ids == task.ids and step.name == task.name for step in steps)
    assert from_json(task.to_json()) == task
    assert parse_task(f"{task.name}:{task.label()}") == task


def test_aspects_are_what_they_say():
    copying = held_out(parse_task("copying:longest=6"), 200)
    lengths = parse_task("copying:longest=6").aspects(copying)["length"]
    assert [row.tolist().index(27) - 1 for row in copying.tokens] == lengths.tolist()
    book = parse_task("phonebook:entries=4,fewest=1")
    items = held_out(book, 200)
    aspects = book.aspects(items)
    for row, entries, distance in zip(items.tokens.tolist(), aspects["entries"], aspects["distance"], strict=True):
        question = row.index(32)
        assert entries == question // 9 == row.count(31)
        own = row[: question - 9 * distance][-9:]
        assert own[:3] == row[question + 1 : question + 4]


def test_questions_of_mqar_come_early_or_anywhere():
    """power 1 is uniform over the slots, 0.01 puts nearly all questions first (Zoology's power law)."""
    places = {
        power: held_out(parse_task(f"mqar:pairs=2,power={power}"), 1000).answers.nonzero()[1].mean()
        for power in (0.01, 1)
    }
    assert places[1] == pytest.approx(33.0, abs=1.0)  # slots at 4, 6, .. 62
    assert places[0.01] < 22


def test_groups_are_groups():
    for group, size in (("parity", 2), ("s3", 6), ("a5", 60), ("s5", 120)):
        task = parse_task(f"state_tracking:group={group}")
        from windtunnel.data.tasks.state_tracking import products

        table = products(group)
        assert task.ids == size == len(table)
        assert (np.sort(table, 0) == np.arange(size)[:, None]).all()
        assert (np.sort(table, 1) == np.arange(size)).all()
        assert np.array_equal(table[0], np.arange(size))  # the identity comes first
    bits = held_out(parse_task("state_tracking:length=20"), 100)
    assert np.array_equal(np.cumsum(bits.tokens, 1) % 2, bits.targets)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(2, 50), st.integers(1, 50))
@settings(max_examples=20)
def test_draws_stay_in_range_and_differ(key, index, high, count):
    draws = Draws(key, [index, index + 1])
    uniform = draws.uniform(count)
    assert ((uniform > 0) & (uniform < 1)).all()
    assert (uniform[0] != uniform[1]).all()
    whole = draws.integers(0, high, count)
    assert whole.min() >= 0
    assert whole.max() < high
    some = draws.distinct(3, 3 + high, min(count, high))
    assert all(len(set(row)) == min(count, high) for row in some.tolist())


def test_draws_are_uniform():
    uniform = Draws(7, range(200)).uniform(500)
    counts = np.histogram(uniform, 50, (0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 95  # chi-square with 49 degrees, p = 1e-4
    assert abs(np.corrcoef(uniform[:, 0], uniform[:, 1])[0, 1]) < 0.3
    far = Draws(7, range(300)).distinct(0, 5000, 60)
    assert far.max() > 4900
    assert far.min() < 100


def test_the_hash_of_a_runs_data_reads_tokens_and_answers():
    stream = TaskStream(parse_task("copying"), "train", 0)
    assert batch_hash(stream, 10, 4) == batch_hash(TaskStream(parse_task("copying"), "train", 0), 10, 4)
    assert batch_hash(stream, 10, 4) != batch_hash(TaskStream(parse_task("copying"), "train", 1), 10, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mqr", "did you mean mqar"),
        ("mqar:pair=3", "did you mean pairs"),
        ("mqar:pairs=200,length=4096", "at most 127"),
        ("mqar:pairs=20", "at least 80"),
        ("mqar:vocab=33", "must be even"),
        ("mqar:fill=noise", "'zero' or 'random'"),
        ("mqar:pairs=0", "pairs is 0"),
        ("induction:length=5,probes=2", "length is 5; at least 6"),
        ("induction:vocab=2", "vocab is 2; at least 3"),
        ("selective_copying:items=80", "room for 64"),
        ("copying:shortest=20", "at most longest=16"),
        ("lookup:symbols=3,gram=1", "hardly one"),
        ("phonebook:entries=500", "at most 128"),
        ("noisy_recall:noise=1.0", "below 1"),
        ("fuzzy_recall:vocab=8,pairs=7", "at most 4"),
        ("memorisation:length=600", "at most 256"),
        ("state_tracking:group=s4", "'parity'"),
        ("copying:longest=1.5", "expected int"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(text, words):
    with pytest.raises(InputError, match=words):
        parse_task(text)


def test_too_little_variety_is_refused():
    with pytest.raises(InputError, match="different"):
        held_out(parse_task("copying:symbols=2,shortest=1,longest=3"), 500)
    with pytest.raises(InputError, match="different"):
        held_out(parse_task("state_tracking:length=2"), 100)

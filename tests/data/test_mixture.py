"""Mixed sets, against counting sequence by sequence, and against what each set's own sampler draws."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.cli.sources import read_mix
from windtunnel.data.corpus import Corpus, Document
from windtunnel.data.mixture import Mixture, Share, make_sampler, resolve, typed
from windtunnel.data.sampler import Sampler, batch_hash
from windtunnel.data.shard import Split
from windtunnel.data.shards import prepare
from windtunnel.errors import InputError

END = 250
SETS = {"a": 40, "b": 10, "c": 25}


def make_split(sets: dict[str, int] = SETS) -> Split:
    """Documents of 20 tokens; every token of a set is its number, so that a window tells where it comes from."""
    documents = [(name, np.array([END, *[number] * 20])) for number, name in enumerate(sets) for _ in range(sets[name])]
    tokens = np.concatenate([ids for _, ids in documents]).astype(np.uint16)
    offsets = np.arange(len(documents) + 1) * 21
    ends = [0, *itertools.accumulate(sets.values())]
    parts = tuple((name, (ends[i], ends[i + 1])) for i, name in enumerate(sets))
    names = [str(i) for i in range(len(documents))]
    owners = [name for name, _ in documents]
    return Split(tokens, offsets, np.full(len(documents), 20), names, owners, END, parts)


SPLIT = make_split()
MIX = (Share(set="a", weight=0.5), Share(set="b", weight=0.3), Share(set="c", weight=0.2))


@given(
    st.lists(st.floats(1e-3, 1), min_size=1, max_size=3),
    st.integers(0, 2**40),
    st.integers(1, 30),
    st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_places_count_on_from_any_sequence(weights: list[float], first: int, length: int, seed: int) -> None:
    mix = tuple(Share(set=name, weight=weight) for name, weight in zip(SETS, weights, strict=False))
    mixture = Mixture(SPLIT, 8, seed, mix)
    owners, places = mixture.owners(range(first, first + length))
    before = mixture._before(first)
    assert sum(before) == first
    shares = np.diff(mixture._bounds) / 2**32  # whole parts of 2^32
    assert shares == pytest.approx(np.array(weights) / sum(weights), rel=0, abs=2**-32)
    assert [first * share for share in shares] == pytest.approx(before, abs=60)
    for number in range(len(weights)):
        here = places[owners == number]
        assert here.tolist() == list(range(before[number], before[number] + len(here)))


def test_counts_are_those_of_going_through_all_sequences() -> None:
    mixture = Mixture(SPLIT, 8, 5, MIX)
    owners, places = mixture.owners(range(3000))
    counts: Counter[int] = Counter()
    for sequence, (owner, place) in enumerate(zip(owners.tolist(), places.tolist(), strict=True)):
        assert mixture._before(sequence) == [counts[k] for k in range(3)]
        assert place == counts[owner]
        counts[owner] += 1
    for start in range(0, 3000, 100):  # evenly, in every stretch
        for number, share in enumerate(MIX):
            assert abs(int((owners[start : start + 100] == number).sum()) - 100 * share.weight) <= 3


def test_every_row_is_the_next_of_its_set() -> None:
    mixture = make_sampler(SPLIT, 8, 3, MIX)
    alone = [Sampler(SPLIT.part(name), 8, 3, name) for name in SETS]
    seen = [0, 0, 0]
    for step in range(40):
        for row in mixture.batch(step, 6).tokens.numpy():
            owner = int(row[row != END][0])
            assert row.tolist() == alone[owner].batch(seen[owner], 1).tokens[0].tolist()
            seen[owner] += 1
    assert min(seen) > 30


@given(st.integers(0, 10**9), st.integers(1, 12), st.data())
@settings(max_examples=40, deadline=None)
def test_rows_do_not_depend_on_the_split(step: int, batch_size: int, data: st.DataObject) -> None:
    mixture = make_sampler(SPLIT, 8, 3, MIX)
    cut = data.draw(st.integers(0, batch_size))
    whole = mixture.batch(step, batch_size).tokens
    parts = [make_sampler(SPLIT, 8, 3, MIX).batch(step, batch_size, rows) for rows in (slice(cut), slice(cut, None))]
    assert [*parts[0].tokens.tolist(), *parts[1].tokens.tolist()] == whole.tolist()


def test_the_first_mixed_batches_stay_what_they_are() -> None:
    """A change here would make results of different versions of the package incomparable."""
    mixture = make_sampler(SPLIT, 8, 0, MIX)
    assert isinstance(mixture, Mixture)
    assert mixture.owners(range(12))[0].tolist() == [0, 1, 0, 0, 1, 0, 2, 0, 0, 1, 0, 2]
    hashes = {batch_hash(make_sampler(SPLIT, 8, seed, MIX), 100, 4) for seed in range(4)}
    assert len(hashes) == 4
    assert batch_hash(mixture, 100, 4) == batch_hash(make_sampler(SPLIT, 8, 0, MIX), 100, 4)


def test_epochs_are_counted_for_each_set() -> None:
    mixture = make_sampler(SPLIT, 8, 0, MIX)
    windows = {name: Sampler(SPLIT.part(name), 8, 0, name).windows for name in SETS}
    epochs = mixture.epochs_by_set(200)
    assert epochs == pytest.approx({share.set: 200 * share.weight / windows[share.set] for share in MIX}, rel=0.05)
    assert mixture.epochs(50, 4) == epochs["b"]
    mixture.check_epochs(10, 4, 2.0)
    with pytest.raises(InputError, match=r"would be .* epochs of set 'b'.*at most \d+ tokens, give it at most 0\.\d+"):
        mixture.check_epochs(50, 4, 2.0)


def test_weights_and_epochs_become_shares() -> None:
    assert resolve({"a": "1", "b": "3", "c": "0"}, SPLIT) == (Share(set="a", weight=0.25), Share(set="b", weight=0.75))
    repeated = resolve({"a": "1x", "b": "4x", "c": "0.4x"}, SPLIT)
    assert {share.set: round(share.weight * 90) for share in repeated} == {"a": 40, "b": 40, "c": 10}
    mixture = make_sampler(SPLIT, 8, 0, repeated)
    counted = mixture.epochs_by_set(5000)
    assert counted["b"] / counted["a"] == pytest.approx(4, rel=0.05)
    assert counted["c"] / counted["a"] == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"a": "1", "b": "1"}, "set 'c' of the data has no weight; give it one, 0 to leave it out"),
        ({"a": "1", "b": "1", "c": "1", "d": "1"}, "no set 'd' in the data; its sets are a, b, c"),
        ({"a": "1", "b": "1x", "c": "1"}, "a=1 is a weight and b=1x are epochs"),
        ({"a": "1", "b": "many", "c": "1"}, "b=many; expected a number"),
        ({"a": "1", "b": "-1", "c": "1"}, "b=-1; expected a number of at least 0"),
        ({"a": "nan", "b": "1", "c": "1"}, "a=nan; expected"),
        ({"a": "0", "b": "0", "c": "0"}, "no set has a weight above 0"),
    ],
)
def test_bad_weights_are_one_line(mix: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        resolve(mix, SPLIT)
    assert "\n" not in str(caught.value)


def test_a_corpus_of_one_set_cannot_be_mixed(tmp_path: Path) -> None:
    texts = [Document(str(i), f"text {i} " * 20) for i in range(60)]
    train = prepare(Corpus("made", "made", texts), "bytes", 16, 300, tmp_path).train
    with pytest.raises(InputError, match="the data is all one set; name its parts with --data NAME=PATH"):
        resolve({"wiki": "1"}, train)


def test_a_set_too_small_for_a_window_is_named() -> None:
    with pytest.raises(InputError, match="of set 'b' hold no window of context 100"):
        make_sampler(make_split({"a": 40, "b": 2}), 100, 0, (Share(set="b", weight=1),))


def test_a_mix_is_typed_or_one_file(tmp_path: Path) -> None:
    assert read_mix(["a=0.3", "b=c=2x"]) == typed(["a=0.3", "b=c=2x"]) == {"a": "0.3", "b=c": "2x"}
    (tmp_path / "mix.toml").write_text('a = 0.3\n"Wikipedia (en)" = 3\n')
    (tmp_path / "mix.json").write_text('{"a": "1x", "Wikipedia (en)": "3x"}')
    assert read_mix([str(tmp_path / "mix.toml")]) == {"a": "0.3", "Wikipedia (en)": "3"}
    assert read_mix([str(tmp_path / "mix.json")]) == {"a": "1x", "Wikipedia (en)": "3x"}
    bad = tmp_path / "bad.toml"
    bad.write_text("a = [1]\n")
    for given_mix, message in (
        ([str(bad)], r"bad\.toml: a is \[1\]"),
        (["a=1", "a=2"], "'a' was given 1 already"),
        (["a"], "expected NAME=WEIGHT"),
        ([str(bad), "a=1"], "name one file"),
        ([str(tmp_path / "none.json")], "none.json cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            read_mix(given_mix)
    bad.write_text("a = \n")
    with pytest.raises(InputError, match=r"bad\.toml is not TOML"):
        read_mix([str(bad)])

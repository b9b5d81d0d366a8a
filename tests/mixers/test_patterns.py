"""Patterns against their definitions, pair by pair in plain Python, and against the counts worked out by hand."""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.errors import InputError
from windtunnel.mixers import Attention, BigBird, Fixed, Pattern, Sliding, SparseAttention, Strided
from windtunnel.mixers.kept import Kept
from windtunnel.mixers.patterns import multiplied, pairs, tiles
from windtunnel.mixers.tiling import document_tiles

SLIDING = st.builds(
    Sliding, window=st.integers(2, 40), dilation=st.integers(1, 6), prefix=st.integers(0, 9)
) | st.builds(Sliding, window=st.none(), dilation=st.integers(2, 6), prefix=st.integers(0, 3))
STRIDED = st.builds(Strided, stride=st.integers(2, 12), part=st.sampled_from(["both", "band", "stride"]))
FIXED = st.tuples(st.integers(2, 12), st.integers(1, 12), st.integers(0, 11)).map(
    lambda sizes: Fixed(
        stride=sizes[0], columns=min(sizes[0], sizes[1]), part=["both", "local", "summary"][sizes[2] % 3]
    )
)
SHIFTED = st.integers(3, 9).map(lambda stride: Fixed(stride=stride, columns=2, first=stride - 3, part="summary"))
BIGBIRD = st.builds(
    BigBird,
    block=st.integers(1, 9),
    first=st.integers(0, 2),
    window=st.sampled_from([1, 3, 5]),
    chosen=st.integers(0, 3),
    seed=st.integers(0, 9),
)
PATTERNS = SLIDING | STRIDED | FIXED | SHIFTED | BIGBIRD
LENGTHS = st.integers(1, 64) | st.integers(65, 200)


def allowed(pattern: Pattern, i: int, j: int) -> bool:
    """The definitions once more, in plain Python."""
    if j > i:
        return False
    if isinstance(pattern, Sliding):
        steps, rest = divmod(i - j, pattern.dilation)
        return j < pattern.prefix or (rest == 0 and (pattern.window is None or steps < pattern.window))
    if isinstance(pattern, Strided):
        near, far = i - j < pattern.stride, (i - j) % pattern.stride == 0
        return {"both": near or far, "band": near, "stride": far}[pattern.part]
    if isinstance(pattern, Fixed):
        first = pattern.stride - pattern.columns if pattern.first is None else pattern.first
        near = i // pattern.stride == j // pattern.stride
        far = i == j or first <= j % pattern.stride < first + pattern.columns
        return {"both": near or far, "local": near, "summary": far}[pattern.part]
    assert isinstance(pattern, BigBird)
    own, other, side = i // pattern.block, j // pattern.block, pattern.window // 2
    free = list(range(pattern.first, max(pattern.first, own - side)))
    drawn = random.Random(f"{pattern.seed}/{own}").sample(free, min(pattern.chosen, len(free)))
    return other < pattern.first or own - other <= side or other in drawn


def table(pattern: Pattern, length: int) -> torch.Tensor:
    return torch.tensor([[allowed(pattern, i, j) for j in range(length)] for i in range(length)])


@given(pattern=PATTERNS, length=st.integers(1, 64))
@settings(max_examples=60)
def test_the_set_its_rows_and_its_pairs(pattern: Pattern, length: int) -> None:
    expected, at = table(pattern, length), torch.arange(length)
    assert torch.equal(pattern.sees(at[:, None], at), expected)
    assert torch.equal(pattern.rows(at), expected.sum(1))
    assert pairs(pattern, length) == int(expected.sum())
    assert bool(expected.diagonal().all())


@given(pattern=PATTERNS, length=LENGTHS)
@settings(max_examples=60)
def test_tiles_hold_every_pair_once(pattern: Pattern, length: int) -> None:
    counts, at = torch.zeros(length, length, dtype=torch.int64), torch.arange(length)
    for queries, keys, seen in tiles(pattern, length):
        tile, query, key = seen.nonzero(as_tuple=True)
        counts.index_put_((queries[tile, query], keys[tile, key]), torch.ones_like(tile), accumulate=True)
        for row in queries:
            assert len(row[row >= 0].unique()) == int((row >= 0).sum())
    assert torch.equal(counts, pattern.sees(at[:, None], at).long())
    assert multiplied(pattern, length) == sum(each.seen.numel() for each in tiles(pattern, length))


@given(pattern=PATTERNS, seen=st.integers(0, 90))
@settings(max_examples=60)
def test_what_is_kept_is_what_may_still_be_seen(pattern: Pattern, seen: int) -> None:
    at = torch.arange(seen)
    coming = torch.arange(seen, seen + 300)
    needed = pattern.sees(coming[:, None], at).any(0)
    kept = pattern.kept(seen).of(at)
    if isinstance(pattern, BigBird) and pattern.chosen:
        assert bool(kept.all())  # any block may be drawn one day
    else:
        assert torch.equal(kept, needed)
    assert pattern.kept(seen).count(seen) == int(kept.sum())
    for_good = pattern.kept(seen).for_good(at)
    assert torch.equal(pattern.kept(seen).rank(at), for_good.cumsum(0) - for_good.long())
    far = coming[:, None] - at > (pattern.reach if pattern.reach is not None else 10**9)
    assert not bool((pattern.sees(coming[:, None], at) & far & ~for_good).any())


@given(each=st.lists(PATTERNS, min_size=1, max_size=4), seen=st.integers(0, 200))
def test_several_heads_keep_what_any_of_them_may_see(each: list[Pattern], seen: int) -> None:
    at, kept = torch.arange(seen), Kept.union(pattern.kept(seen) for pattern in each)
    assert bool((kept.of(at) >= torch.stack([p.kept(seen).of(at) for p in each]).any(0)).all())
    assert kept.count(seen) == int(kept.of(at).sum())


@given(pattern=PATTERNS, ends=st.lists(st.integers(1, 119), min_size=1, max_size=5, unique=True))
@settings(max_examples=40)
def test_tiles_of_documents_are_those_of_each_alone(pattern: Pattern, ends: list[int]) -> None:
    length = 60
    ids = torch.zeros(2 * length, dtype=torch.int64)
    for end in ends:
        ids[end:] += 1
    ids = ids.view(2, length)
    counts = torch.zeros(2 * length, 2 * length, dtype=torch.int64)
    for queries, keys, seen in document_tiles(ids, lambda size: tiles(pattern, size)):
        tile, query, key = seen.nonzero(as_tuple=True)
        counts.index_put_((queries[tile, query], keys[tile, key]), torch.ones_like(tile), accumulate=True)
    expected = torch.zeros_like(counts)
    starts = sorted({0, length, *ends, 2 * length})
    for start, end in pairwise(starts):
        at = torch.arange(end - start)
        expected[start:end, start:end] = pattern.sees(at[:, None], at)
    assert torch.equal(counts, expected)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (Sliding(window=16), 3976),
        (Sliding(window=16, dilation=2), 3856),
        (Sliding(window=16, dilation=3), 3736),
        (Sliding(window=256), 256 * 257 // 2),
        (Sliding(window=16, prefix=4), 3976 + 4 * (256 - 16) - 6),
        (Strided(stride=16, part="band"), 3976),
        (Strided(stride=16, part="stride"), 2176),
        (Strided(stride=16), 3976 + 2176 - 256),
        (Fixed(stride=16, columns=4, part="local"), 2176),
        (Fixed(stride=16, columns=4, part="summary"), 7840 + 256 - 64),  # its own, where that is no summary
    ],
)
def test_counts_at_256_positions(pattern: Pattern, expected: int) -> None:
    """Worked out by hand: T w - w (w - 1)/2 for windows, sums of min(floor(i/d) + 1, w) for dilated ones."""
    assert pairs(pattern, 256) == expected


@pytest.mark.parametrize("length", [30, 64])
@pytest.mark.parametrize(
    ("lower", "upper", "everything"),
    [
        (Strided(stride=8, part="band"), Strided(stride=8, part="stride"), True),
        (Strided(stride=8, part="stride"), Strided(stride=8, part="band"), True),
        (Fixed(stride=8, columns=2, part="local"), Fixed(stride=8, columns=2, part="summary"), True),
        (Fixed(stride=8, columns=2, part="summary"), Fixed(stride=8, columns=2, part="local"), False),
    ],
)
def test_two_layers_reach_everything(lower: Pattern, upper: Pattern, everything: bool, length: int) -> None:
    """Section 4.3 of the Sparse Transformer; the fixed pattern in the other order does not."""
    at = torch.arange(length)
    first, second = (each.sees(at[:, None], at).double() for each in (lower, upper))
    reached = (second @ first) > 0
    assert torch.equal(reached, torch.ones(length, length).tril() > 0) is everything


def test_random_blocks_do_not_know_what_follows() -> None:
    pattern, at = BigBird(block=2, seed=5), torch.arange(120)
    whole = pattern.sees(at[:, None], at)
    short = pattern.sees(at[:50, None], at[:50])
    assert torch.equal(whole[:50, :50], short)
    assert not torch.equal(whole, BigBird(block=2, seed=6).sees(at[:, None], at))
    blocks = whole[119].view(-1, 2).any(1).sum()
    assert blocks == 2 + 2 + 3  # global, the own one and that before, drawn


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: Sliding(window=0), "window must be positive or None, got 0"),
    (lambda: Sliding(window=4, dilation=0), "dilation must be at least 1.*got 0"),
    (lambda: Sliding(window=1, dilation=2), "no distances to dilate by 2"),
    (lambda: Sliding(window=4, prefix=-1), "prefix must not be negative, got -1"),
    (lambda: Sliding(window=None, prefix=3), "a prefix of 3 adds nothing"),
    (lambda: Strided(stride=1), "stride must be at least 2, got 1"),
    (lambda: Strided(stride=4, part="fixed"), "'both' or 'band' or 'stride'"),
    (lambda: Fixed(stride=4, columns=5), "columns 5 must be between 1 and the stride 4"),
    (lambda: Fixed(stride=8, columns=3, first=6), "first 6.*leave the stride of 8"),
    (lambda: BigBird(window=2), "window must be odd and positive, got 2"),
    (lambda: BigBird(chosen=-1), "chosen must not be negative, got -1"),
    (lambda: BigBird(block=0), "block must be positive, got 0"),
    (lambda: SparseAttention(heads=4, patterns=(Sliding(window=3),) * 3), "one for each of 4 heads, got 3"),
    (lambda: SparseAttention(heads=4, kv_heads=3, patterns=(Sliding(window=3),)), "kv_heads 3 does not divide heads 4"),
    (
        lambda: SparseAttention(heads=2, patterns=(Sliding(window=3, prefix=1),), own_prefix=True),
        r"at least 2 tokens.*got \[1\]",
    ),
    (lambda: SparseAttention(heads=2, patterns=(Strided(stride=3),), own_prefix=True), r"got \[0\]"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_what_cannot_be_is_refused_by_name(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_a_window_of_attention_is_the_same_number() -> None:
    """`Sliding(window=w)` and `Attention(window=w)` mean w keys, the query's own included."""
    assert Attention(heads=1, window=3).window == 3
    assert Sliding(window=3).sees(torch.tensor(9), torch.arange(12)).nonzero().flatten().tolist() == [7, 8, 9]

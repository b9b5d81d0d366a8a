"""The benchmark of utilisation at a size that takes no time."""

import json

import pytest

from windtunnel.bench import mfu
from windtunnel.bench.shape import Shape

SMALL = Shape(layers=1, width=16, heads=2, hidden=24, vocab=64, context=16, batch_size=2, tied=True)


def test_both_train_alike_and_their_shares_follow_from_their_speed() -> None:
    result = json.loads(json.dumps(mfu.run(rounds=2, threads=1, shape=SMALL)))
    plain, ours = result["contestants"]
    assert ours["loss"] == pytest.approx(plain["loss"], abs=1e-5)
    assert result["parameters"] == 64 * 16 + 4 * 16 * 16 + 3 * 16 * 24 + 3 * 16
    products = 6 * (64 * 16 + 4 * 16 * 16 + 3 * 16 * 24)  # a multiply-add is 2, the backward pass twice the forward
    for row in (plain, ours):
        pairs = 2 * 2 * 16 * 3  # scores and values, of each key that a query sees; three passes
        share = row["tokens_per_second"] / result["peak_flops"]
        assert row["mfu"] == pytest.approx(share * (products + pairs * 17 / 2))
        assert row["mfu_dense"] == pytest.approx(share * (products + pairs * 16))
    assert [row[0] for row in mfu.table(result).rows] == [mfu.PLAIN, mfu.OURS]


def test_the_model_on_a_gpu_has_the_size_of_nanogpt() -> None:
    from windtunnel.ledger import ledger

    assert ledger(mfu.ON_GPU.spec(), 1024).parameters.n_total == pytest.approx(124e6, rel=0.01)

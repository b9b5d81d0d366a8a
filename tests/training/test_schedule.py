"""Learning rates against a table computed by hand, and the order of segments."""

from collections.abc import Callable

import numpy as np
import pytest

from windtunnel.training.schedule import Segment, learning_rate, segments
from windtunnel.training.settings import TrainingSettings

Make = Callable[..., TrainingSettings]


def test_wsd_table(make_settings: Make) -> None:
    settings = make_settings(tokens=64 * 20, learning_rate=1.0, warmup=0.2, cooldown=0.25)
    rates = [learning_rate(settings, step, 1.0) for step in range(20)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0] + [1.0] * 11 + [1.0, 0.8, 0.6, 0.4, 0.2])
    assert [learning_rate(settings, step, None) for step in range(15)] == rates[:15]


def test_shorter_horizon_shares_the_trunk_and_warmup(make_settings: Make) -> None:
    settings = make_settings(tokens=64 * 20, learning_rate=2.0, warmup=0.2, cooldown=0.4, horizons=(0.5, 1.0))
    rates = [learning_rate(settings, step, 0.5) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5])


def test_cosine_against_its_closed_form(make_settings: Make) -> None:
    settings = make_settings(tokens=64 * 50, learning_rate=3.0, schedule="cosine", warmup=0.1, floor=0.1)
    steps = np.arange(5, 50)
    expected = 3.0 * (0.1 + 0.9 * np.cos(np.pi / 2 * (steps - 5) / 45) ** 2)  # (1 + cos x) / 2 = cos²(x / 2)
    assert [learning_rate(settings, step, 1.0) for step in steps] == pytest.approx(expected.tolist())
    assert learning_rate(settings, 5, 1.0) == 3.0


def test_cosine_stays_at_its_floor(make_settings: Make) -> None:
    settings = make_settings(tokens=64 * 50, learning_rate=3.0, schedule="cosine", warmup=0.1, floor=0.1, flat=0.3)
    rates = [learning_rate(settings, step, 1.0) for step in range(50)]
    shorter = make_settings(tokens=64 * 35, learning_rate=3.0, schedule="cosine", warmup=1 / 7, floor=0.1)
    assert rates[:35] == pytest.approx([learning_rate(shorter, step, 1.0) for step in range(35)])
    assert rates[35:] == pytest.approx([0.3] * 15)


def test_palm_table_at_its_own_length(make_settings: Make) -> None:
    """The paper's rule at 255 000 steps: 0.01 to step 10 000, then 1/sqrt(k)."""
    palm = {"schedule": "rsqrt", "constant": 10 / 255, "warmup": 0.0, "cooldown": 0.0, "learning_rate": 0.01}
    settings = make_settings(tokens=64 * 255_000, **palm)
    published = {1: 0.01, 10_000: 0.01, 20_000: 20_000**-0.5, 115_000: 115_000**-0.5, 255_000: 1.980e-3}
    for k, rate in published.items():
        assert learning_rate(settings, k - 1, None) == pytest.approx(rate, rel=3e-4), k
        assert learning_rate(settings, k - 1, 1.0) == learning_rate(settings, k - 1, None)


def test_reciprocal_root_can_warm_up_and_cool_down(make_settings: Make) -> None:
    settings = make_settings(tokens=64 * 100, schedule="rsqrt", constant=0.25, warmup=0.1, cooldown=0.2)
    rates = [learning_rate(settings, step, 1.0) / 3e-3 for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:25] == [1.0] * 15
    assert rates[79] == pytest.approx((25 / 80) ** 0.5)
    assert rates[95] == pytest.approx((25 / 96) ** 0.5 * 5 / 20)
    assert segments(settings.replace(horizons=(0.5, 1.0)))[:2] == (
        Segment(0, 40, None, False),
        Segment(40, 50, 0.5, True),
    )


def test_no_warmup_starts_at_the_full_rate(make_settings: Make) -> None:
    assert learning_rate(make_settings(warmup=0.0), 0, None) == 3e-3


def test_no_cooldown_and_nothing_but_cooldown(make_settings: Make) -> None:
    assert learning_rate(make_settings(cooldown=0.0), 39, 1.0) == 3e-3
    falling = [learning_rate(make_settings(cooldown=1.0, warmup=0.0), step, 1.0) for step in range(40)]
    assert falling == pytest.approx([3e-3 * (40 - step) / 40 for step in range(40)])


def test_segments_cover_trunk_and_branches(make_settings: Make) -> None:
    assert segments(make_settings(horizons=(0.25, 0.5, 1.0))) == (
        Segment(0, 8, None, False),
        Segment(8, 10, 0.25, True),
        Segment(8, 16, None, False),
        Segment(16, 20, 0.5, True),
        Segment(16, 32, None, False),
        Segment(32, 40, 1.0, False),
    )
    assert segments(make_settings(schedule="cosine")) == (Segment(0, 40, 1.0, False),)
    assert segments(make_settings(cooldown=1.0, warmup=0.0)) == (Segment(0, 40, 1.0, False),)

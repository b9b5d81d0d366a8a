"""Griffin's, Hawk's and their baseline's parameters: the formula, the released presets, and sizes for a laptop."""

import pytest
import torch

import windtunnel as wt
from tests.recipes.griffin_sizes import BODIES, body
from windtunnel.ledger import Parameters, count


def counted(recipe: str, **given: object) -> Parameters:
    with torch.device("meta"):
        return count(wt.recipes.get(recipe)(**given).build())


@pytest.mark.parametrize(("recipe", "size"), BODIES)
def test_bodies(recipe: str, size: str) -> None:
    assert counted(recipe, size=size).n_body == body(recipe, size)
    assert body(recipe, size) / 1e6 == pytest.approx(BODIES[recipe, size], rel=5e-4)


def test_the_released_presets_have_a_gate_block_for_each_head() -> None:
    assert counted("griffin", size="7b", gate_blocks=32).n_total == 7_795_144_704
    assert counted("hawk", size="7b", heads=32).n_total == 8_161_562_624


@pytest.mark.parametrize(
    ("width", "channels", "layers", "griffin", "hawk", "baseline"),
    [
        (128, 192, 3, 708_224, 761_344, 601_984),
        (192, 256, 6, 2_966_976, 3_148_224, 2_604_480),
        (256, 352, 6, 5_291_008, 5_634_944, 4_603_136),
    ],
)
def test_small_sizes(width: int, channels: int, layers: int, griffin: int, hawk: int, baseline: int) -> None:
    given = {"width": width, "layers": layers, "heads": 4, "vocab": 256}
    assert counted("griffin", recurrent_width=channels, gate_blocks=4, **given).n_total == griffin
    assert counted("hawk", recurrent_width=channels, **given).n_total == hawk
    assert counted("mqa_transformer", **given).n_total == baseline


def test_the_models_of_the_synthetic_tasks() -> None:
    """Section 6: five layers of width 64, the third of Griffin's is attention, about 250K parameters."""
    given = {"width": 64, "layers": 5, "vocab": 16}
    assert counted("griffin", pattern="RRARR", recurrent_width=64, heads=1, **given).n_total == 258_752
    assert counted("hawk", recurrent_width=64, **given).n_total == 255_808
    assert counted("mqa_transformer", heads=1, **given).n_total == 270_528

"""Which of attention's four matrices have a bias."""

import pytest

from windtunnel.mixers import Attention


@pytest.mark.parametrize(
    ("bias", "output_bias", "expected"),
    [
        (False, None, set()),
        (True, None, set("qkvo")),
        (False, True, {"o"}),
        (True, False, set("qkv")),
    ],
)
def test_the_output_may_differ(bias: bool, output_bias: bool | None, expected: set[str]) -> None:
    layer = Attention(heads=2, bias=bias, output_bias=output_bias).build(8)
    assert {name for name, _ in layer.named_parameters() if name.endswith("bias")} == {
        f"{each}.bias" for each in expected
    }

"""Hardware: the table, a file that changes it, this machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from windtunnel.errors import InputError
from windtunnel.planning.hardware import NAMES, TABLE, find


def written(folder: Path, content: Any) -> Path:
    path = folder / "hardware.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_ridge_points_are_the_published_ones() -> None:
    """FLOPs a byte at which products take as long as reading: the vendors' figures divided."""
    ridges = {name: TABLE[name].peak("bfloat16") / TABLE[name].bandwidth for name in ("a100", "h100", "h200")}
    assert ridges == pytest.approx({"a100": 153, "h100": 295, "h200": 206}, abs=0.5)


def test_every_value_says_where_it_comes_from() -> None:
    for entry in TABLE.values():
        bases = entry.to_json()["basis"]
        assert {"peaks", "memory", "bandwidth", "link", "network", "island", "host"} == set(bases)
        assert all(each["source"] for each in bases.values())
    assert TABLE["tpu-v3"].basis("network")[0] == "assumed"
    assert TABLE["tpu-v4"].basis("memory")[0] == "published"


def test_a_file_changes_some_values_and_adds_others(tmp_path: Path) -> None:
    file = written(tmp_path, {"a100": {"memory": 40e9}, "mine": {"base": "h100", "island": 16, "source": "a letter"}})
    changed, mine = find("a100", file), find("mine", file)
    assert (changed.memory, changed.bandwidth) == (40e9, TABLE["a100"].bandwidth)
    assert changed.basis("memory")[0] == "given"
    assert changed.basis("bandwidth")[0] == "published"
    assert (mine.name, mine.island, mine.peaks) == ("mine", 16, TABLE["h100"].peaks)
    assert mine.basis("island") == ("given", "a letter")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "hardware.json: "),
        ([1], "expected"),
        ({"new": {"memory": 1e9}}, "peaks, bandwidth, link, network, island, host must be given"),
        ({"a100": {"memroy": 1e9}}, "unknown field 'memroy'; did you mean memory"),
        ({"a100": {"memory": -1}}, "memory: expected a number above 0, got -1"),
        ({"a100": {"island": 2.5}}, "island: expected a whole number of at least 1, got 2.5"),
        ({"a100": {"peaks": {}}}, "peaks: expected FLOP/s by precision"),
        ({"x": {"base": "b100"}}, "base: unknown 'b100'"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(InputError, match="hardware file") as caught:
        find("a100", written(tmp_path, content))
    assert words in str(caught.value)


def test_unknown_hardware_and_precision_are_refused_with_what_is_known() -> None:
    with pytest.raises(InputError) as caught:
        find("b100")
    assert all(name in str(caught.value) for name in NAMES)
    with pytest.raises(InputError, match="no peak of tpu-v4 in float32 is known; it has bfloat16"):
        find("tpu-v4").peak("float32")


def test_this_machine_is_measured(tmp_path: Path) -> None:
    machine = find("cpu", cache=tmp_path)
    assert machine.basis("peaks")[0] == machine.basis("bandwidth")[0] == "measured"
    assert machine.basis("network")[0] == "assumed"
    assert machine.memory > 1e9
    assert 1e8 < machine.peak("float32") < 1e15
    assert (tmp_path / "peaks.json").is_file()

"""`--data NAME=PATH` and `--mix`, from what is typed to what is reported and refused."""

import random
from pathlib import Path

import pytest

SMALL = ("--set", "layers=1", "--set", "width=16", "--set", "heads=2", "--context", "16", "--batch", "4")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    draw = random.Random(0)
    for name, words in (("code", "def return if None"), ("wiki", "wind wing lift stall drag")):
        lines = (" ".join(draw.choices(words.split(), k=9)) for _ in range(300))
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    return "--data", f"code={tmp_path / 'code.txt'}", "--data", f"wiki={tmp_path / 'wiki.txt'}"


def test_sets_are_mixed_and_reported(command, files, tmp_path: Path) -> None:
    asked = ("train", "llama", *files, "--tokens", "2k", *SMALL)
    (tmp_path / "mix.json").write_text('{"code": "2x", "wiki": "1x"}')
    answer = command(*asked, "--mix", "code=1", "--mix", "wiki=3", "--out", "a")
    said = " ".join(answer.out.split())
    assert answer.code == 0, answer.err
    assert "mixture code 0.25 (0." in said
    assert "by set code " in said
    assert "waiting for data" in said
    record = command(*asked, "--mix", "mix.json", "--workers", "2", "--out", "b", "--json").json
    shares = {share["set"]: share["weight"] for share in record["settings"]["mixture"]}
    sizes = {name: each["train_tokens"] for name, each in record["data"]["sets"].items()}
    assert shares["code"] == pytest.approx(2 * sizes["code"] / (2 * sizes["code"] + sizes["wiki"]))
    assert set(record["result"]["horizons"]["1.0"]["sets"]) == {"code", "wiki"}
    assert record["epochs_by_set"]["code"] == pytest.approx(2 * record["epochs_by_set"]["wiki"], rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mix", "code=1"), "mix: set 'wiki' of the data has no weight"),
        (("--mix", "code=1", "--mix", "wiki=1", "--mix", "new=1"), "mix: there is no set 'new' in the data"),
        (("--mix", "code=1", "--mix", "wiki"), "--mix wiki: expected NAME=WEIGHT"),
        (("--mix", "code=1", "--mix", "wiki=0", "--max-epochs", "0.1"), "epochs of set 'code'"),
        (("--mix", "none.toml"), "--mix none.toml cannot be read"),
        (("--workers", "-1"), "--workers: expected a count"),
    ],
)
def test_bad_options_are_one_line(command, files, options: tuple[str, ...], message: str) -> None:
    answer = command("train", "llama", *files, "--tokens", "2k", *SMALL, *options, "--out", "a")
    assert answer.code == 2
    assert message in answer.error
    assert not Path("a").exists()

"""`windtunnel ablate`: what is planned, what is refused in one line, and a smallest path from question to page."""

import pytest

SMALL = ("--preset", "smoke", "--set", "layers=1", "--set", "width=16", "--set", "context=32", "--tokens", "1k")
FEW = ("--seeds", "2", "--trials", "1", "--evaluation-tokens", "512", "--workers", "1")


@pytest.fixture
def ablate(command, text):
    def run(recipe, *words):
        return command("ablate", recipe, "--data", text, "--out", "study", *SMALL, *FEW, *words)

    return run


@pytest.mark.parametrize(
    ("mode", "labels"), [((), ("llama", "diff_transformer", "without-")), (("--path",), ("llama",))]
)
def test_a_plan_shows_every_arm_and_trains_nothing(ablate, tmp_path, mode, labels):
    answer = ablate("diff_transformer", *mode, "--plan", "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    steps = [step["label"] for step in found["ablation"]["steps"]]
    assert found["ablation"]["mode"] == ("path" if mode else "remove")
    assert len(steps) == 2
    shown = [arm["label"] for arm in found["arms"]]
    assert set(steps) < set(shown)
    assert all(any(label.startswith(wanted) for label in shown) for wanted in labels)
    assert found["seconds"] > 0
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("recipe", "words", "said"),
    [
        ("lama", (), "unknown recipe 'lama'; did you mean llama"),
        ("llama", (), "differs from llama in nothing alone"),
        ("palm", ("--against", "lama"), "unknown recipe 'lama'"),
        ("palm", ("--tokens", "20M"), "epochs of"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(ablate, tmp_path, recipe, words, said):
    answer = ablate(recipe, *words)
    assert answer.code == 2
    assert said in answer.error
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_a_path_from_question_to_page(ablate, command, tmp_path):
    answer = ablate("diff_transformer", "--path")
    assert answer.code == 0, answer.err
    page = (tmp_path / "study" / "report.html").read_text()
    assert "The way from llama to diff_transformer" in page
    stored = command("report", "study", "--json").json
    labels = [step["label"] for step in stored["ablation"]["steps"]]
    assert [effect["with"] for effect in stored["ablation"]["effects"]] == labels
    assert set(labels) <= set(stored["arms"])
    refused = ablate("diff_transformer")
    assert refused.code == 2
    assert "holds another study" in refused.error

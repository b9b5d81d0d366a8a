"""Which variants were tried before: asked when a study is registered, told beside its answers."""

import json
from dataclasses import replace

import pytest

from windtunnel.comparison.caveats import caveats
from windtunnel.comparison.request import plan_study
from windtunnel.comparison.study import save_study
from windtunnel.comparison.tried import tried_before, tried_words
from windtunnel.selftest.small import request, written


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return written(tmp_path_factory.mktemp("corpus"))


def registered(corpus, folder, *arms, created="2026-01-01"):
    study = plan_study(request(corpus, folder, *arms))
    save_study(study, folder, created)
    return study


def test_a_study_knows_what_was_tried_beside_it(corpus, tmp_path):
    registered(corpus, tmp_path / "b", "llama", "ngpt", "palm", created="2026-01-02")
    registered(corpus, tmp_path / "a", "llama", "same=llama:seed_offset=100", "hawk", created="2026-01-01")
    registered(corpus, tmp_path / "third", "llama", "griffin", created="2026-01-03")
    record = json.loads((tmp_path / "third" / "study.json").read_text())
    assert [(one["folder"], one["variants"]) for one in record["tried"]] == [("a", ["hawk"]), ("b", ["ngpt", "palm"])]
    assert json.loads((tmp_path / "b" / "study.json").read_text())["tried"] == []
    words = tried_words(record["tried"])
    assert len(words) == 1
    assert "3 variants had been tried" in words[0]
    assert "2 studies beside this one (hawk, ngpt, palm)" in words[0]


def test_other_data_and_what_is_no_study_are_passed_over(corpus, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(corpus.read_text()[::-1])
    registered(other, tmp_path / "studies" / "other", "llama", "ngpt")
    for name, text in (("damaged", "{"), ("odd", '{"question": {"arms": 3}}'), ("list", "[]")):
        (tmp_path / "studies" / name).mkdir()
        (tmp_path / "studies" / name / "study.json").write_text(text)
    study = plan_study(request(corpus, tmp_path / "studies" / "new", "llama", "palm"))
    assert tried_before(tmp_path / "studies" / "new", study.question()) == []
    assert tried_words([]) == []


def test_the_sentence_is_among_the_caveats(corpus, tmp_path):
    study = plan_study(request(corpus, tmp_path / "new", "llama", "palm"))
    study = replace(study, data={**study.data, "epochs": 0.5})
    tried = [{"study": "x", "folder": "a", "created": "2026", "variants": ["hawk"]}]
    arm = {"n_body": 10, "params": {"n_emb": 1, "n_unemb": 1}, "own_settings": {}, "diverged": 0}
    results = {"arms": {"llama": arm, "palm": arm}, "tried": tried}
    assert any(
        "1 variant had been tried on the same data before, in one study" in text for text in caveats(study, results)
    )
    assert not any("had been tried" in text for text in caveats(study, {**results, "tried": []}))

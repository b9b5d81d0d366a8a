"""Documents to train on: what is kept, what is asked and answered, names that no evaluation has."""

import re
from collections import Counter

import pytest

from windtunnel.data.documents import Document
from windtunnel.errors import InputError
from windtunnel.evaluation.retrieval.drawing import split_of
from windtunnel.evaluation.retrieval.training import SET, Planting, planted

FACT = re.compile(r"One of the special magic numbers for (\w+) is: (\d{7})\.")
GIVEN = re.compile(r"The special magic number for (\w+) is: (\d{7})")
SENTENCES = ["Nobody knew it. ", "It rained there. ", "A dog ran off! ", "Why? "]
TEXTS = [Document(f"d{k}", SENTENCES[k % 4] * (20 + k), "a" if k % 2 else None) for k in range(40)]
ALL = Planting(share=1.0, shortest=40, longest=160)


def test_every_question_is_answered_by_its_own_text():
    kinds: Counter[str] = Counter()
    for document in planted(TEXTS, ALL):
        body, question = document.text.rsplit("\nWhat ", 1)
        if "pass key" in question:
            kinds["passkey"] += 1
            key = re.search(r"The pass key is (\d{5})\. Remember it", body)[1]  # type: ignore[index]
            assert question.endswith(f"The pass key is {key}")
            continue
        facts, given = dict(FACT.findall(body)), GIVEN.findall(question)
        kinds[f"{len(facts)}/{len(given)}"] += 1
        assert all(facts[name] == number for name, number in given)
        assert document.text.endswith(given[-1][1])
        assert {split_of(name) for name in facts} == {"train"}
    assert set(kinds) == {"passkey", "1/1", "2/2", "4/2"}
    assert kinds["1/1"] > kinds["passkey"] > 0


def test_pieces_are_cut_from_the_text_and_others_left_as_they_are():
    planting = Planting(share=0.4, shortest=40, longest=160)
    found = list(planted(TEXTS, planting))
    left = [document for document in found if document.set != SET]
    assert left == [document for document in TEXTS if not planting.chooses(document.text)]
    assert 5 < len(left) < 35
    assert len({document.name for document in found}) == len(found)
    first = next(document for document in TEXTS if planting.chooses(document.text))
    own = [one.text for one in found if one.name.startswith(f"{first.name}, ") and "pass key" not in one.text]
    assert own
    for text in own:
        piece = FACT.sub("", text.rsplit("\nWhat ", 1)[0])
        assert re.sub(r"\s+", "", piece) in re.sub(r"\s+", "", first.text)


def test_the_seed_changes_what_is_asked_and_not_which_documents():
    one, again, other = (list(planted(TEXTS, ALL._replace(seed=seed))) for seed in (0, 0, 1))
    assert one == again
    assert [each.text for each in one] != [each.text for each in other]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": 0.0}, "share: 0 given; above 0"),
        ({"share": 1.5}, "share: 1.5 given"),
        ({"shortest": 0}, "shortest and longest: 0 and 800"),
        ({"shortest": 900}, "shortest and longest: 900 and 800"),
    ],
)
def test_what_gives_no_pieces_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        list(planted(TEXTS, Planting(**changes)))

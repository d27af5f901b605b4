"""Notes below a table of claims: said once, of the claims that they are of, and nothing is lost."""

import pytest

from fenland.lab.study.notes import in_words, shared, split


@pytest.mark.parametrize(("numbers", "words"), [
    ((3,), "3"), ((1, 2), "1, 2"), ((1, 2, 3), "1 to 3"), ((1, 2, 3, 4, 7, 8, 10, 11, 12), "1 to 4, 7, 8, 10 to 12"),
])  # fmt: skip
def test_numbers_in_words(numbers, words):
    assert in_words(numbers) == words


def test_what_claims_have_in_common_is_said_once():
    told = [
        (1, ["Paired over seeds.", "One of two."]),
        (2, ["Paired over seeds."]),
        (4, ["Paired over seeds.", "Odd."]),
    ]
    assert shared(told) == [("1, 2, 4", "Paired over seeds."), ("1", "One of two."), ("4", "Odd.")]


def test_sentences_of_the_same_claims_stay_one_text_in_order():
    told = [(number, ["First.", f"Own {number}.", "Last."]) for number in (1, 2)]
    assert shared(told) == [("1, 2", "First. Last."), ("1", "Own 1."), ("2", "Own 2.")]


def test_a_sentence_that_leans_stays_with_what_it_leans_on():
    text = "Of 3 runs 0.5 failed, see Figs. 4 and 5. It is a reading. mnist: all images. Means."
    assert split(text) == ["Of 3 runs 0.5 failed, see Figs. 4 and 5. It is a reading.", "mnist: all images.", "Means."]
    assert split("") == []

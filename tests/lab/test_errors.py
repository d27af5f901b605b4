"""The cure of an error names what is allowed, and what a misspelt word may have meant."""

import pytest

from fenland.lab.errors import meant, one_of


@pytest.mark.parametrize(("given", "words"), [
    ("sgdd", "; perhaps you meant sgd"), ("SSAM", "; perhaps you meant ssam"),
    ("ssamm", "; perhaps you meant ssam or sam"), ("xyz", ""), ("", ""),
])  # fmt: skip
def test_a_misspelt_word_is_recognised_in_any_case_and_others_are_not(given, words):
    allowed = ["sgd", "sam", "ssam"]
    assert meant(given, allowed) == words
    assert one_of(iter(allowed), given) == f"choose one of sgd, sam, ssam{words}"

"""The equations of docstrings in TeX: read by hand, and every method's."""

import re

import pytest

import fenland
from fenland.lab.report.equations import markdown, tex

BY_HAND = {
    "e = rho g/|g|": r"e = \rho \frac{g}{\lvert g\rvert}",
    "d = h |g|/|h|": r"d = h \frac{\lvert g\rvert}{\lvert h\rvert}",
    "e = rho T^2 g": r"e = \rho T^{2} g",
    "<g,h>": r"\langle g,\ h\rangle",
    "e_{k+1} = e_k": "e_{k + 1} = e_{k}",
    "(a + b)/(c - d)": r"\frac{a + b}{c - d}",
    "x^(1/p)": "x^{1 / p}",
    "sqrt(1 + 4*r)": r"\sqrt{1 + 4 \, r}",
    "|z|^(q-1)": r"\lvert z\rvert ^{q - 1}",
    "t < stop": r"t \lt \operatorname{stop}",
    "w_adv = grad_R L(w)": r"w_{\text{adv}} = \nabla _{R} L (w)",
}


@pytest.mark.parametrize("plain", BY_HAND)
def test_an_equation_read_by_hand(plain):
    assert re.sub(r" +", " ", tex(plain)).strip() == BY_HAND[plain]


def test_words_stay_words_and_wrap():
    assert markdown("e = rho g on norm layers, 0 elsewhere; d = h") == (
        r"$e = \rho g$ on norm layers, $0$ elsewhere; $d = h$"
    )


@pytest.mark.parametrize("wrong", ["(a", "a)", "|a", "<a, b"])
def test_what_does_not_close_is_refused(wrong):
    with pytest.raises(ValueError, match="close"):
        tex(wrong)


@pytest.mark.parametrize("row", fenland.PRESETS.values(), ids=lambda row: row.name)
def test_every_method_s_equation_is_mathematics(row):
    convert = pytest.importorskip("latex2mathml.converter").convert
    written = markdown(row.equation)
    formulas = re.findall(r"\$([^$]+)\$", written)
    assert written.count("$") == 2 * len(formulas)
    for formula in formulas:
        assert formula.count("{") == formula.count("}")
        assert "|" not in formula, "a bar would end a table's cell"
        assert convert(formula).startswith("<math")
    # No name of a Greek letter is left as a word.
    assert not re.search(r"(?<!\\)\b(?:rho|gamma|alpha|sigma|eta)\b", written)

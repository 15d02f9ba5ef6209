"""The search for volatile SQL: splitting into words first changes no answer."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from dagster_sao.sql import volatility
from dagster_sao.sql.volatility import is_volatile

_NAMES = sorted(
    {*volatility._WORDS, "uuid_generate_v4", "uuid_generate_", "date", "timestamp", "cast", "using", "modules"}
)
# Letters that `re.IGNORECASE` takes for `s`, `k` and `i`, and `str.lower` does not.
_ODD = st.sampled_from([("s", "\u017f"), ("k", "\u212a"), ("i", "\u0131"), ("i", "\u0130")])
_SIGNS = ["(", ")", " ", "\n", "'", "::", ".", ",", "--", "/*", "*/", "{#", "#}", "{{", "}}", "x", "_", "1", "é"]


@st.composite
def _word(draw):
    word = draw(st.sampled_from(_NAMES))
    if draw(st.booleans()):
        word = draw(st.sampled_from([word.upper(), word.title()]))
    if draw(st.integers(0, 9)) == 0:
        word = word.replace(*draw(_ODD))
    return word


_TEXTS = st.lists(st.one_of(_word(), st.sampled_from(_SIGNS)), max_size=12).map("".join)


@example("{% set m = modules %}")
@example("{{ [1, 2] | random }}")
@example("select \u017fysdate")
@example("select t\u0131meofday()")
@given(_TEXTS)
def test_the_words_of_a_text_never_hide_that_it_is_volatile(text):
    stripped = volatility._COMMENTS.sub(lambda found: found["string"] or " ", text)
    assert is_volatile(text) is (volatility._VOLATILE.search(stripped) is not None)


def test_chance_and_the_clock_in_jinja_are_volatile():
    for tag in ("modules.datetime.date.today()", "modules['datetime'].date.today()", "[1, 2] | random", "lipsum()"):
        assert is_volatile(f"select '{{{{ {tag} }}}}'")
    assert is_volatile("{% set m = modules %}")
    assert not is_volatile("select modules, {{ modules.re.sub('a', 'b', name) }}")

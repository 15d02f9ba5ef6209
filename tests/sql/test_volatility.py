"""The search for volatile SQL: splitting into words first changes no answer."""

from __future__ import annotations

import pytest
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
    assert is_volatile(text) is (volatility._VOLATILE.search(volatility._without_comments(text)) is not None)


def test_chance_and_the_clock_in_jinja_are_volatile():
    for tag in ("modules.datetime.date.today()", "modules['datetime'].date.today()", "[1, 2] | random", "lipsum()"):
        assert is_volatile(f"select '{{{{ {tag} }}}}'")
    assert is_volatile("{% set m = modules %}")
    assert not is_volatile("select modules, {{ modules.re.sub('a', 'b', name) }}")


@pytest.mark.parametrize(
    "sql",
    [
        "select now64(3)", "select yesterday()", "select generateUUIDv4()", "select randUniform(1, 2)", "select sysdatetimeoffset()",
        "select crypt_gen_random(4)", "select dbms_random.value from dual", "select current_utcdate from dummy", "select current date",
        "select date('now')", "select strftime('%s', 'now')", "select datetime()", "select mz_now()", "select toDate('today')",
        "select 1 where a < 'tomorrow 12:00'::timestamp", "select timestamp 'today Europe/Berlin'", "select * from t at(offset => -60)",
    ],
)  # fmt: skip
def test_the_clocks_of_every_dialect_are_volatile(sql):
    assert is_volatile(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "select date, time, current, offset from t", "select date(a), to_date(b, 'YYYY') from t", "select a in ('now', 'today') from t",
        "select current_price, date '2026-01-01' from t", "select a[offset(0)], 'now and then' from t", "select strftime('%s', a) from t",
    ],
)  # fmt: skip
def test_ordinary_dates_are_not_volatile(sql):
    assert not is_volatile(sql)


@pytest.mark.parametrize(
    "sql",
    [
        """select concat("--", a), now()""",
        "select `a /* b`, now() -- */",
        "select 'it\\'s -- ', now()",
        "select '''it's -- ''', now()",
    ],
)
def test_what_looks_like_a_comment_within_a_string_hides_nothing(sql):
    assert is_volatile(sql)


def test_a_comment_is_not_volatile():
    assert not is_volatile("""select "it's", 'a' -- "now()"\n, b /* random() */ from t {# now() #}""")

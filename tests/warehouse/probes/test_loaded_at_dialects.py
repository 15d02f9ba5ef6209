"""The statements of `loaded_at_*` on adapters that no test runs."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.probes.loaded_at import EMPTY, LoadedAtProbe

STATEMENTS = {
    "sqlserver": (
        "select 0 as arm, convert(TEXT, max(loaded_at\n), 121) as answer from shop.orders",
        "select 0 as arm, convert(TEXT, (\nselect 1\n), 121) as answer ",
    ),
    "mysql": (
        "select 0 as arm, cast(max(loaded_at\n) as char) as answer from shop.orders",
        "select 0 as arm, cast((\nselect 1\n) as char) as answer ",
    ),
    "oracle": (
        "select 0 as arm, cast(max(loaded_at\n) as TEXT) as answer from shop.orders",
        "select 0 as arm, cast((\nselect 1\n) as TEXT) as answer from dual",
    ),
    "unheard_of": (
        "select 0 as arm, cast(max(loaded_at\n) as TEXT) as answer from shop.orders",
        "select 0 as arm, cast((\nselect 1\n) as TEXT) as answer ",
    ),
}


def observe(adapter, definition, *answers):
    sent, waiting = [], list(answers)

    def execute(sql, limit=None):
        sent.append(sql)
        return [(0, waiting.pop(0))]

    session = SimpleNamespace(
        adapter_type=adapter,
        traits=traits_of(adapter),
        text_type="TEXT",
        connections=1,
        connection=nullcontext,
        execute=execute,
    )
    orders = Source(
        "source.p.shop.orders", "shop", "orders", "s.yml", definition=definition, relation_name="shop.orders"
    )
    found = dict(LoadedAtProbe(session, lambda: 0).observe([orders], lambda: False))
    return sent, found[orders.unique_id]


@pytest.mark.parametrize(("adapter", "expected"), STATEMENTS.items())
def test_a_timestamp_is_read_with_all_its_digits(adapter, expected):
    for definition, statement in zip(
        ({"loaded_at_field": "loaded_at"}, {"loaded_at_query": "select 1"}), expected, strict=True
    ):
        sent, seen = observe(adapter, definition, "1969-12-31 10:00:00.123")
        assert sent == [statement]
        assert seen.token == "1969-12-31T10:00:00.123"


def test_each_statement_reads_some_relation_on_oracle():
    sent, seen = observe("oracle", {"loaded_at_query": "select max(a) from b"}, None, 1, "none")
    assert all(sql.endswith(" from dual") for sql in sent)
    assert (len(sent), seen.token) == (3, EMPTY)

"""Documents in the key-value store: read as they were written, and nothing where they cannot be read."""

from __future__ import annotations

import dagster as dg
import pytest

from dagster_sao.orchestration.private.dagster_internals import read_value, write_value
from dagster_sao.orchestration.state.documents import Document, unwritten

# As stored: under another key or name nobody finds what was written before.
STORED = {
    Document.RELATIONS: ("dagster_sao/relations/shop", "content"),
    Document.BASELINES: ("dagster_sao/baselines/shop", "content"),
    Document.COLUMNS: ("dagster_sao/columns/shop", "content"),
    Document.MOVED_IN_RUN: ("dagster_sao/moved_in_run/shop", "content"),
    Document.CHECKPOINTS: ("dagster_sao/checkpoints/shop", "content"),
    Document.CONTRADICTION: ("dagster_sao/contradiction/shop", "content"),
    Document.RESETS: ("dagster_sao/forgotten/shop", "nodes"),
}


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.mark.parametrize("document", Document)
def test_a_document_is_stored_where_it_always_was_and_read_back(instance, document):
    key, name = STORED[document]
    document.write(instance, "shop", {"a": 1})
    assert read_value(instance, key) == f'{{"layout": 1, "{name}": {{"a": 1}}}}'
    assert document.read(instance, "shop") == {"a": 1}
    assert document.read(instance, "shop.ci") == {}


@pytest.mark.parametrize("document", Document)
@pytest.mark.parametrize("text", ["", "no JSON", "[]", "7", '{"layout": 2, "content": {"a": 1}}', '{"layout": 1}'])
def test_a_document_that_cannot_be_read_is_empty(instance, document, text):
    write_value(instance, STORED[document][0], text)
    assert document.read(instance, "shop") == {}


@pytest.mark.parametrize("document", Document)
def test_content_of_another_form_is_empty(instance, document):
    key, name = STORED[document]
    write_value(instance, key, f'{{"layout": 1, "{name}": ["a"]}}')
    assert document.read(instance, "shop") == {}


def test_what_is_written_without_a_trace_is_read_until_then_and_gone_after(instance):
    Document.COLUMNS.write(instance, "shop", {"a": 1})
    with unwritten():
        assert Document.COLUMNS.read(instance, "shop") == {"a": 1}
        Document.COLUMNS.write(instance, "shop", {"a": 2})
        assert Document.COLUMNS.read(instance, "shop") == {"a": 2}
        assert Document.COLUMNS.read(instance, "shop.ci") == {}
    assert Document.COLUMNS.read(instance, "shop") == {"a": 1}

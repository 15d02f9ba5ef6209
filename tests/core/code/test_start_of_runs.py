"""What hooks at the start of a run were seen to read tells what they read in the next run, unless that may take another path."""

from __future__ import annotations

from functools import partial

import pytest

from dagster_sao.core.code.context_values import Surroundings
from dagster_sao.core.code.evidence import code_changes, code_digest
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.read_evidence import EvidenceReader
from dagster_sao.core.code.variables import Variables
from dbt_dagster_sao.trace import Query, Trace
from tests.core.code.test_read_evidence import KINDS
from tests.core.manifests import manifest, model

HOOK, OTHER = "operation.shop.shop-on-run-start-0", "operation.shop.shop-on-run-start-1"
WIDE = ("shop-on-run-start-0 (var: a*)",)


def hook(unique_id, raw):
    return model(unique_id, resource_type="operation", unique_id=unique_id, raw_code=raw, tags=["on-run-start"])


def world(variables, *others, raw="{{ var('a' ~ x) }}"):
    nodes = [model("m"), hook(HOOK, raw), *others]
    return Fingerprinter(manifest(nodes), Surroundings(Variables(project=variables)))


def trace(**seen):
    return Trace(**{"node": HOOK, "kinds": KINDS, "reads": {"var: a1": "?", "has_var: a3": "?"}, **seen})


def built(code, **traces):
    """Return the fingerprint of a model and the evidence of its build."""
    node = code.graph.nodes["model.shop.m"]
    fingerprint = code.fingerprint(node)
    own = Trace(node.unique_id, KINDS, existed=True)
    return fingerprint, EvidenceReader(code, traces).of_node(node, fingerprint, own, "select 1")


def changes(seen, now, *, before=None, others=()):
    before = before or world({"a1": 1, "a2": 1}, *others)
    fingerprint, evidence = built(before, **{HOOK: seen})
    current = now.fingerprint(now.graph.nodes["model.shop.m"])
    value = partial(now.value_now, "model.shop.m")
    return code_changes(current, fingerprint, evidence, value=value, parents_changed=False)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({"a1": 1, "a2": 1}, ()),
        ({"a1": 1, "a2": 2, "new": 1}, ()),
        ({"a1": 2, "a2": 1}, ("a variable that on-run-start reads",)),
        ({"a1": 1, "a2": 1, "a3": 1}, ("a variable that on-run-start reads",)),
    ],
)
def test_a_variable_that_a_hook_was_not_seen_to_read_does_not_count(now, expected):
    assert changes(trace(), world(now)) == expected


@pytest.mark.parametrize(
    "seen",
    [
        None,
        trace(kinds=KINDS - {"var"}),
        trace(kinds=KINDS - {"queries"}),
        trace(queries=(Query("sql", ("select 1",), "?"),)),
        trace(state=("check_schema_exists(db, late) = false",)),
        trace(reads={"selected_resources: *": "?"}),
        trace(reads={"clock": "?"}),
        trace(reads={"shared: graph.x": "?"}),
        trace(reads={"invocation_args_dict: vars": "?"}),
        trace(reads={"var: a1": "another value in dbt"}),
    ],
)
def test_what_may_take_another_path_counts_in_full(seen):
    assert changes(seen, world({"a1": 1, "a2": 2})) == WIDE


@pytest.mark.parametrize(("others", "expected"), [((), ()), ((model("n"),), WIDE)])
def test_what_chooses_the_path_is_compared(others, expected):
    seen = trace(reads={"graph: *": "?"})
    assert changes(seen, world({"a1": 1, "a2": 2}, *others)) == expected
    assert changes(seen, world({"a1": 1, "a2": 1}, *others)) == ()  # alone, it changes no rows


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("select 1", ()),
        ("{{ graph['nodes'] }}", ()),
        ("{% do graph.update(x=1) %}", WIDE),
        ("{{ context[x]() }}", WIDE),
    ],
)
def test_a_key_of_the_graph_that_another_hook_may_write_counts(raw, expected):
    other = hook(OTHER, raw)
    seen = trace(reads={"var: a1": "?", "shared: graph.x": "-"})
    found = changes(seen, world({"a1": 1, "a2": 2}, other), others=(other,))
    assert set(found) >= set(expected)
    assert (HOOK.rsplit(".", 1)[1] in "".join(found)) == bool(expected)


def test_the_code_of_a_build_is_the_same_whatever_no_hook_read():
    one, other, third = (built(world({"a1": a, "z": z}), **{HOOK: trace()}) for a, z in ((1, 1), (1, 2), (2, 1)))
    assert code_digest(*one) == code_digest(*other)
    assert code_digest(*one) != code_digest(*third)


def test_code_in_a_variable_that_a_hook_reads_counts():
    def of(body):
        found = world({"a": "{{ var('b') }}", "b": body}, raw="{{ var('a') }}")
        return found.fingerprint(found.graph.nodes["model.shop.m"])

    assert of(2).changes_since(of(1)) == ("var: b",)


def test_a_first_build_after_a_hook_tells_what_the_templates_of_the_node_read():
    def of(variables):
        own = model("m", raw_code="{{ var('b' ~ x) }}")
        return Fingerprinter(manifest([own, hook(HOOK, "select 1")]), Surroundings(Variables(project=variables)))

    before, now = of({"b1": 1}), of({"b1": 1, "b2": 1})
    node = before.graph.nodes["model.shop.m"]
    seen = Trace(node.unique_id, KINDS, reads={"var: b1": "?"}, existed=False)
    evidence = EvidenceReader(before, {HOOK: trace(reads={})}).of_node(node, before.fingerprint(node), seen, "select 1")
    value = partial(now.value_now, node.unique_id)
    parts = before.fingerprint(node), now.fingerprint(node)
    assert parts[1].changes_since(parts[0]) == ("var: b*",)
    assert code_changes(parts[1], parts[0], evidence, value=value, parents_changed=False) == ()

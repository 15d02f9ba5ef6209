"""Which nodes dbt builds only after which tests, compared with dbt's own linker."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_sao.core.manifest.read_graph import build_graph
from dagster_sao.orchestration.private.dbt_selection import _dbt_manifest
from dagster_sao.warehouse.dbt_private.config import ensure_flags
from tests.conftest import CORE_PROJECT
from tests.core.manifests import data_test, manifest, model, source

SOURCES = ("source.shop.raw.a", "source.shop.raw.b")


@st.composite
def manifests(draw):
    """Random projects with ephemeral models and tests of one to three things."""
    names: list[str] = []
    nodes = []
    for index in range(draw(st.integers(1, 8))):
        above = draw(st.lists(st.sampled_from([*SOURCES, *names]), max_size=3, unique=True))
        kind = draw(st.sampled_from(["table", "view", "ephemeral"]))
        nodes.append(model(f"m{index}", *above, config={"materialized": kind}))
        names.append(nodes[-1]["unique_id"])
    for index in range(draw(st.integers(1, 5))):
        reads = draw(st.lists(st.sampled_from([*SOURCES, *names]), max_size=3, unique=True))
        nodes.append(data_test(f"t{index}", *reads))
    return manifest(nodes, [source("raw", "a"), source("raw", "b")])


def edges_of_dbt(world):
    """Return the nodes that wait for each test in the graph that `dbt build` makes."""
    from dbt.compilation import Linker

    ensure_flags(CORE_PROJECT, CORE_PROJECT)
    known = _dbt_manifest(world)
    known.build_parent_and_child_maps()
    linker = Linker()
    linker.link_graph(known)
    linker.add_test_edges_1(known)
    tests = [uid for uid in world["nodes"] if uid.startswith("test.")]
    return {uid: {n for n in nx.descendants(linker.graph, uid) if not n.startswith("test.")} for uid in tests}


@settings(max_examples=150, deadline=None)
@given(manifests())
def test_gates_are_the_edges_that_dbt_adds(world):
    gates = build_graph(world).gates
    ephemerals = {uid for uid, props in world["nodes"].items() if props["config"].get("materialized") == "ephemeral"}
    expected = {test: below - ephemerals for test, below in edges_of_dbt(world).items()}
    assert {test: set(gates.gated_by(test)) for test in expected} == expected


@pytest.mark.parametrize(
    ("reads", "gated"),
    [
        (["dim"], ["fct", "report", "labels"]),
        (["fct", "dim"], ["report"]),
        (["fct", "labels"], []),
        (["source.shop.raw.a"], ["dim", "fct", "report", "labels"]),
        ([], []),
    ],
)
def test_a_test_gates_what_is_below_all_that_it_reads(reads, gated):
    nodes = [model("dim", SOURCES[0]), model("fct", "dim"), model("report", "fct", "dim"), model("labels", "dim")]
    world = manifest([*nodes, data_test("t", *reads)], [source("raw", "a")])
    gates = build_graph(world).gates
    found = [uid.rsplit(".", 1)[-1] for uid in gates.gated_by("test.shop.t.1")]
    assert sorted(found) == sorted(gated)
    assert all(
        gates.gates("test.shop.t.1", f"model.shop.{name}") is (name in gated) for name in ("dim", "fct", "report")
    )


def test_a_test_of_an_ephemeral_model_gates_what_reads_that_model_and_not_all_below_its_parents():
    nodes = [
        model("a", SOURCES[0]),
        model("eph", "a", config={"materialized": "ephemeral"}),
        model("through", "eph"),
        model("beside", "a"),
    ]
    world = manifest([*nodes, data_test("t", "eph")], [source("raw", "a")])
    graph = build_graph(world)
    assert graph.tests["test.shop.t.1"].reads == ("model.shop.a",)
    assert graph.gates.gated_by("test.shop.t.1") == ["model.shop.through"]


def test_an_incremental_model_that_names_itself_is_no_circle():
    world = manifest([model("m", "m"), model("below", "m"), data_test("t", "m")])
    assert build_graph(world).gates.gated_by("test.shop.t.1") == ["model.shop.below"]


def test_a_test_of_what_others_build_belongs_to_who_reads_it_here():
    """With a selection, tests outside of it are left to others, and so is what they read."""
    nodes = [model("theirs", SOURCES[0]), model("mine", "theirs"), data_test("t", "theirs"), data_test("u", "mine")]
    world = manifest(nodes, [source("raw", "a")])
    mine = {"model.shop.mine", "test.shop.u.1"}
    assert set(build_graph(world, built=mine).tests) == {"test.shop.u.1"}


def test_a_run_that_loads_a_source_is_no_node_that_waits():
    """A Dagster asset may load a source, and its run is then under way for the source."""
    gates = build_graph(manifest([model("m", SOURCES[0])], [source("raw", "a")])).gates
    assert gates.mask([SOURCES[0]]) == 0
    assert gates.mask([SOURCES[0], "model.shop.m"]) == gates.mask(["model.shop.m"]) != 0

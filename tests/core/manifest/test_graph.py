"""Manifests as graphs: dbt's own, those of other dbt versions and other projects, and broken ones."""

from __future__ import annotations

import pytest

from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.core.manifest.graph import NodeKind
from dagster_sao.core.manifest.read_graph import build_graph
from tests.core.manifests import manifest, model, seed, source


@pytest.fixture(scope="module")
def shop(core_manifest):
    return Fingerprinter(core_manifest).graph


def parents(graph, name):
    return {graph.label(p) for p in graph.nodes[name].parents}


def test_ephemeral_models_are_replaced_by_their_parents(shop):
    assert parents(shop, "model.shop.through_ephemerals") == {"raw.orders", "raw.customers"}
    assert shop.nodes["model.shop.through_ephemerals"].ephemerals == (
        "model.shop.outer_ephemeral",
        "model.shop.inner_ephemeral",
    )


def test_ephemeral_models_are_no_nodes(shop):
    assert "model.shop.inner_ephemeral" not in shop.nodes


def test_an_ephemeral_model_of_a_package_is_replaced_too(shop):
    assert parents(shop, "model.shop.var_in_ephemeral_of_package_edit") == {"raw.orders"}


def test_disabled_nodes_and_sources_are_not_there(shop):
    assert "model.shop.a_disabled" not in shop.nodes
    assert "source.shop.raw.disabled_source" not in shop.sources


def test_tests_and_unit_tests_are_no_nodes(shop):
    assert {n.resource_type for n in shop.nodes.values()} == {"model", "seed", "snapshot"}


def test_data_tests_know_what_they_read_and_whether_they_count(shop):
    tests = {t.name: t for t in shop.tests.values() if not t.is_unit_test}
    assert {name: t.is_error for name, t in tests.items()} == {"not_null_a_view_id": True, "unique_a_view_id": False}
    assert all(t.reads == ("model.shop.a_view",) for t in tests.values())


def test_unit_tests_know_their_model(shop):
    (test,) = (t for t in shop.tests.values() if t.is_unit_test)
    assert (test.name, test.reads) == ("counts", ())
    assert shop.gates.gates(test.unique_id, test.model)


def test_an_incremental_model_is_not_its_own_parent(shop):
    assert parents(shop, "model.shop.an_incremental") == {"raw.quoted"}


def test_versions_of_a_model_are_told_apart(shop):
    assert parents(shop, "model.shop.reads_versions") == {"versioned.v1", "versioned.v2"}


def test_quoted_names_are_kept(shop):
    assert shop.nodes["model.shop.quoted_names"].relation_name == '"memory"."main"."Order Lines"'
    assert shop.sources["source.shop.raw.quoted"].identifier == "Raw Orders"


def test_parents_come_before_children(shop):
    order = {uid: index for index, uid in enumerate(shop.nodes)}
    assert all(order[p] < order[uid] for uid, n in shop.nodes.items() for p in n.parents if p in order)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.shop.through_ephemerals", NodeKind.DETERMINISTIC),
        ("model.shop.a_view", NodeKind.VIEW),
        ("model.shop.an_incremental", NodeKind.HISTORY_DEPENDENT),
        ("model.shop.a_volatile", NodeKind.HISTORY_DEPENDENT),
        ("model.shop.a_python", NodeKind.HISTORY_DEPENDENT),
        ("model.shop.materialization_edit", NodeKind.HISTORY_DEPENDENT),
        ("snapshot.shop.kept", NodeKind.HISTORY_DEPENDENT),
        ("seed.shop.countries", NodeKind.SEED),
    ],
)
def test_every_kind_of_node_is_known(shop, name, kind):
    assert shop.nodes[name].kind is kind


def test_a_materialized_view_stores_rows():
    graph = build_graph(manifest([model("m", config={"materialized": "materialized_view"})]))
    assert graph.nodes["model.shop.m"].kind is NodeKind.HISTORY_DEPENDENT


def test_descendants_and_ancestors_reach_all_the_way(shop):
    below = {shop.label(uid) for uid in shop.descendants(["source.shop.raw.customers"])}
    assert below == {"through_ephemerals", "a_view", "a_volatile", "a_python"}
    above = {shop.label(uid) for uid in shop.ancestors(["model.shop.a_volatile"])}
    assert above == {"raw.orders", "raw.customers", "through_ephemerals", "a_view"}


# Other versions


@pytest.mark.parametrize("version", [12, 20])
def test_the_manifests_of_dbt_1_8_to_2_are_read(version):
    assert list(build_graph(manifest([model("m")], version=version)).nodes) == ["model.shop.m"]


def test_a_newer_manifest_says_what_to_upgrade():
    with pytest.raises(InvalidProjectError) as error:
        build_graph(manifest([], version=21))
    assert str(error.value) == (
        "The manifest has schema version 21, written by dbt 1.11.16, and dagster_sao reads up to 20."
        " Upgrade dagster-sao, or parse the project with an older dbt."
    )


@pytest.mark.parametrize("url", ["https://schemas.getdbt.com/dbt/manifest/v11.json", None, "nonsense"])
def test_an_older_or_unknown_manifest_says_what_to_do(url):
    broken = manifest([])
    broken["metadata"]["dbt_schema_version"] = url
    with pytest.raises(InvalidProjectError, match=r"Parse the project again with a newer dbt\.$"):
        build_graph(broken)


@pytest.mark.parametrize(
    "broken", [{}, {"metadata": {}}, {"metadata": [], "nodes": {}, "sources": {}}, {"nodes": {}, "sources": {}}]
)
def test_what_is_no_manifest_says_so(broken):
    with pytest.raises(InvalidProjectError, match="This is not a dbt manifest"):
        build_graph(broken)


def test_the_layouts_of_dbt_1_10_and_1_12_are_read():
    """1.10 knows no `functions`, keeps no `config` for sources; 1.12 has both, and functions as parents."""
    older = manifest([model("m", "source.shop.raw.t")], [source("raw", "t", config={})])
    del older["unit_tests"]
    assert build_graph(older).nodes["model.shop.m"].parents == ("source.shop.raw.t",)
    function = {"unique_id": "function.shop.f", "depends_on": {"nodes": ["source.shop.raw.t"], "macros": []}}
    newer = manifest(
        [model("m", "function.shop.f")],
        [source("raw", "t")],
        functions={"function.shop.f": {**function, "raw_code": "1"}},
    )
    assert build_graph(newer).nodes["model.shop.m"].parents == ("source.shop.raw.t",)


@pytest.mark.parametrize(
    ("dbt_version", "continues"), [("1.11.16", False), ("1.12.0", True), ("1.13.0b1", True), (None, False)]
)
def test_a_model_continues_on_error_where_dbt_knows_the_setting(dbt_version, continues):
    world = manifest([model("m", config={"on_error": "continue"}), model("n", config={"on_error": "skip_children"})])
    world["metadata"]["dbt_version"] = dbt_version
    nodes = build_graph(world).nodes
    assert (nodes["model.shop.m"].continues_on_error, nodes["model.shop.n"].continues_on_error) == (continues, False)


def test_entries_without_optional_keys_are_read():
    bare = model("m")
    for name in ("config", "depends_on", "language", "relation_name"):
        del bare[name]
    graph = build_graph({**manifest([]), "nodes": {"model.shop.m": bare}})
    assert graph.nodes["model.shop.m"].parents == ()


# Other projects


def test_a_model_of_another_project_counts_as_a_source():
    theirs = model(
        "their_orders", package_name="other", original_file_path="", raw_code="", config={"access": "public"}
    )
    graph = build_graph(manifest([theirs, model("mine", "model.other.their_orders")]))
    assert list(graph.nodes) == ["model.shop.mine"]
    external = graph.sources["model.other.their_orders"]
    assert (external.label, external.is_external_node) == ("other.their_orders", True)


def test_what_others_build_counts_as_a_source():
    world = manifest([model("a"), model("b", "a")])
    graph = build_graph(world, built={"model.shop.b"})
    assert list(graph.nodes) == ["model.shop.b"]
    assert graph.sources["model.shop.a"].label == "shop.a"


# Broken ones


def test_an_unknown_parent_is_named_with_its_child_and_file():
    with pytest.raises(InvalidProjectError) as error:
        build_graph(manifest([model("m", "absent")]))
    assert str(error.value) == (
        "m (models/m.sql) depends on model.shop.absent, which the manifest does not contain."
        " Parse the project again, or correct the ref() or source()."
    )


def test_a_disabled_parent_is_named_as_disabled():
    off = model("off", config={"enabled": False})
    for world in (
        manifest([off, model("m", "off")]),
        manifest([model("m", "off")], disabled={off["unique_id"]: [off]}),
    ):
        with pytest.raises(
            InvalidProjectError, match=r"^m \(models/m\.sql\) depends on model\.shop\.off, which is disabled"
        ):
            build_graph(world)


def test_a_cycle_is_named_in_order():
    with pytest.raises(InvalidProjectError) as error:
        build_graph(manifest([model("a", "c"), model("b", "a"), model("c", "b")]))
    text = str(error.value)
    assert text.startswith("The project has a cycle: ")
    assert text.endswith(". Remove one of these ref() calls and parse again.")
    assert " → ".join("abcabc").find(text.split(": ")[1].split(".", maxsplit=1)[0][:5]) >= 0 or "←" not in text


def test_a_cycle_of_ephemeral_models_ends():
    loop = [
        model("a", "b", config={"materialized": "ephemeral"}),
        model("b", "a", config={"materialized": "ephemeral"}),
        model("m", "a"),
    ]
    assert build_graph(manifest(loop)).nodes["model.shop.m"].parents == ()


def test_a_project_without_nodes_is_a_graph():
    graph = build_graph(manifest([]))
    assert (graph.nodes, graph.children, graph.project_name) == ({}, {}, "shop")


def test_a_source_without_readers_has_no_children():
    assert build_graph(manifest([seed("s")], [source("raw", "t")])).children == {
        "source.shop.raw.t": (),
        "seed.shop.s": (),
    }

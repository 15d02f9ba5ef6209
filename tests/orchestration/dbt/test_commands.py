"""The dbt commands of a run: which, in which order, and with words that select exactly what is meant."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from dbt.graph.selector import NodeSelector

from dagster_sao.core.decision.decide import Action, Decision, Reason
from dagster_sao.core.errors import InvalidSelectionError
from dagster_sao.core.manifest.read_graph import build_graph
from dagster_sao.orchestration.dbt import commands
from dagster_sao.orchestration.dbt.commands import Invocations
from dagster_sao.orchestration.private.dbt_selection import DbtSelector, WordSelector
from dagster_sao.orchestration.selection.words import SelectionWords, escaped
from dagster_sao.warehouse.adapters import traits_of
from tests.conftest import run_dbt
from tests.core.manifests import data_test, function, manifest, model, with_functions
from tests.support.dbt_version import DBT_VERSION

F, G = "function.shop.f", "function.shop.g"
HERE = Path(__file__).parent

since_functions = pytest.mark.skipif(DBT_VERSION < (1, 11), reason="dbt has functions from 1.11 on")


def invocations_of(world):
    graph = build_graph(world)
    project = SimpleNamespace(graph=graph, traits=traits_of(graph.adapter_type).relations)
    loaded = SimpleNamespace(project=project, manifest=world)
    return Invocations(loaded, SelectionWords(world, WordSelector(world, HERE, HERE)))


def decisions_of(world, *, refreshed=()):
    return {
        uid: Decision(Action.BUILD, Reason.REQUESTED, "", full_refresh=node.name in refreshed)
        for uid, node in build_graph(world).nodes.items()
    }


def shop(**config):
    """Return a >> b >> c, of which b and c call g, which calls f; and a test of a that calls f."""
    return manifest(
        [
            model("a", config=config),
            model("b", "a", G, config=config),
            model("c", "b", G, config=config),
            data_test("t", "a", F),
        ],
        **with_functions(function("g", "f"), function("f")),
    )


A, B, C, T = "model.shop.a", "model.shop.b", "model.shop.c", "test.shop.t.1"


@pytest.mark.parametrize(
    ("nodes", "tests", "created", "expected"),
    [
        ([A], [], [], []),
        ([B], [], [], [F, G]),
        ([A, B, C], [T], [], [F, G]),
        ([], [T], [], [F]),
        ([C], [], [F], [G]),
        ([C], [T], [F, G], []),
    ],
)
def test_functions_come_with_what_calls_them_in_the_order_of_creation(nodes, tests, created, expected):
    assert invocations_of(shop()).functions(nodes, tests, created) == expected


@pytest.mark.parametrize(
    ("args", "nodes", "tests", "functions", "expected"),
    [
        (["build"], [A], [], [], ["build", "--select", "shop.a"]),
        (["build"], [A, B], [T], [F, G], ["build", "--select", "shop.f shop.g shop.a shop.b shop.t"]),
        (["build"], [A, B, C], [T], [F, G], ["build", "--select", "fqn:*"]),
        (["build"], [A, B, C], [T], [F], ["build", "--select", "shop.f shop.a shop.b shop.c shop.t"]),
        (["build"], [], [T], [], ["test", "--select", "shop.t"]),
        (["build", "--show", "--full-refresh", "--sample", "3 days"], [], [T], [], ["test", "--select", "shop.t"]),
        (["build"], [], [], [F], ["build", "--select", "shop.f"]),
        (["run"], [A], [], [], ["run", "--select", "shop.a"]),
        (["run"], [B], [], [F, G], ["build", "--select", "shop.f shop.g shop.b"]),
        (["snapshot", "--quiet"], [B], [], [G], ["build", "--quiet", "--select", "shop.g shop.b"]),
    ],
)
@since_functions
def test_dbt_is_told_of_functions_by_a_command_that_creates_them(args, nodes, tests, functions, expected):
    chosen = invocations_of(shop())
    (invocation,) = chosen.choose([*nodes, *tests], decisions_of(shop())) or [commands.Invocation()]
    assert chosen.arguments(invocation, nodes, tests, args, functions) == expected


@since_functions
@pytest.mark.parametrize(
    ("materialized", "refreshed", "order", "expected"),
    [
        ("table", {}, [A, T, B, C], [([A, B, C], [T], None)]),
        # A table is created anew each time, whatever dbt is told.
        ("table", {"b"}, [A, T, B, C], [([A, B, C], [T], None)]),
        ("incremental", {}, [A, T, B, C], [([A, B, C], [T], False)]),
        ("incremental", {"a", "b", "c"}, [A, T, B, C], [([A, B, C], [T], True)]),
        ("incremental", {"b"}, [A, T, B, C], [([A], [T], False), ([B], [], True), ([C], [], False)]),
        ("incremental", {"c"}, [A, T, B, C], [([A, B], [T], False), ([C], [], True)]),
        ("incremental", {"c"}, [T], [([], [T], None)]),
        ("incremental", {"c"}, [], []),
    ],
)
def test_what_needs_a_full_refresh_is_a_command_of_its_own(materialized, refreshed, order, expected):
    world = shop(materialized=materialized)
    chosen = invocations_of(world).choose(order, decisions_of(world, refreshed=refreshed))
    assert [(one.nodes, one.tests, one.full_refresh) for one in chosen] == expected


@since_functions
@pytest.mark.parametrize(("order", "expected"), [([], [[F]]), ([A], [[F]]), ([A, B, C], [[], [F]])])
def test_functions_that_nothing_calls_are_created_with_the_last_command(order, expected):
    world = shop(materialized="incremental")
    decisions = decisions_of(world, refreshed={"c"})
    assert [one.uncalled for one in invocations_of(world).choose(order, decisions, [F])] == expected


@since_functions
def test_a_function_that_nothing_calls_is_not_taken_for_everything():
    world = shop()
    world["functions"]["function.shop.lonely"] = function("lonely")
    chosen = invocations_of(world)
    (invocation,) = chosen.choose([A, B, C, T], decisions_of(world))
    assert "fqn:*" not in chosen.arguments(invocation, [A, B, C], [T], ["build"], [F, G])


@pytest.mark.parametrize("longest", [40, 80, 120, 200])
@since_functions
def test_each_piece_of_a_long_selection_is_short_with_the_functions_that_it_creates(monkeypatch, longest):
    monkeypatch.setattr(commands, "LONGEST_SELECTION", longest)
    world = shop(materialized="incremental")
    chosen, decisions = invocations_of(world), decisions_of(world, refreshed={"c"})
    created = set()
    for piece in chosen.choose([A, T, B, C], decisions):
        functions = chosen.functions(piece.nodes, piece.tests, created)
        created |= set(functions)
        words = chosen.arguments(piece, piece.nodes, piece.tests, ["build"], functions)[-1].split()
        assert len(words) == 1 or sum(len(word) + 1 for word in words) <= longest
    assert created == {F, G}


# On real dbt


TAXED = "{name: NAME, arguments: [], returns: {data_type: integer}}"
VERSIONS = "{name: orders, versions: [{v: 1}, {v: 2}], columns: [{name: id, data_tests: [not_null]}]}"
UNIT = "{name: NAME, model: MODEL, given: [], expect: {rows: [{id: 1}]}}"
FUNCTIONS = ["functions/taxed.sql", "functions/taxed/inner.sql", "functions/of two words/spaced.sql", "functions/t.sql"]
PROJECT = "{name: NAME, version: 1.0.0, profile: shop, flags: {send_anonymous_usage_stats: false, require_resource_names_without_spaces: false}}"
SNAPSHOT = "{% snapshot NAME %}{{ config(unique_key='id', strategy='check', check_cols='all') }} select 1 as id{% endsnapshot %}"
FILES = {
    "dbt_project.yml": PROJECT.replace("NAME", "shop"),
    "packages.yml": "packages: [{local: util}]",
    "util/dbt_project.yml": PROJECT.replace("NAME", "util"),
    # A folder named like the project, with a model named like the project's.
    "util/models/shop/t.sql": "{{ config(alias='other_t') }} select 1 as id",
    "util/models/shop/t/below.sql": "select 1 as id",
    "profiles.yml": "shop: {target: dev, outputs: {dev: {type: duckdb, path: ':memory:'}}}",
    **dict.fromkeys(FUNCTIONS, "select x"),
    "functions/f.yml": "functions: ["
    + ", ".join(TAXED.replace("NAME", name.rsplit("/", 1)[1][:-4]) for name in FUNCTIONS)
    + "]",
    "models/taxed.sql": "select {{ function('inner') }}(1) as id",
    "models/t.sql": "select 1 as id",
    "models/my folder/spaced_out.sql": "select 1 as id",
    "models/my folder/two words.sql": "select 1 as id",
    "models/my.folder/dotted.sql": "select 1 as id",
    "models/my+folder/added.sql": "select 1 as id",
    "models/my-folder/a,b.sql": "select 1 as id",
    "models/sales.sql": "select 1 as id",
    "models/sales.daily.sql": "select 1 as id",
    "models/sales/inner_sales.sql": "select 1 as id",
    "models/a.b/c.sql": "select 1 as id",
    "models/a/b.c.d.sql": "select 1 as id",
    "models/loaded.csv.sql": "select 1 as id",
    "models/orders_v1.sql": "select 1 as id",
    "models/orders_v2.sql": "select 1 as id",
    "models/items_v1.sql": "select 1 as id",
    "models/shop_items_v1.sql": "select 1 as id",
    "seeds/my seed.csv": "id\n1",
    "snapshots/two.sql": SNAPSHOT.replace("NAME", "kept") + SNAPSHOT.replace("NAME", "kept_all"),
    "tests/t.sql": "select 1 as id from {{ ref('taxed') }} where false",
    "tests/t/t_inner.sql": "select 1 as id from {{ ref('taxed') }} where false",
    "tests/odd name+.sql": "select 1 as id from {{ ref('taxed') }} where false",
    "models/p.yml": f"""
models:
  - {VERSIONS}
  - {{name: shop_items, versions: [{{v: 1}}]}}
  - name: t
    columns:
      - name: id
        data_tests:
          - not_null: {{name: "is it, set: [yes] or no?"}}
          - unique: {{name: "sales"}}
          - not_null: {{name: "ends.sql", config: {{where: "true"}}}}
unit_tests:
  - {UNIT.replace("NAME", "t").replace("MODEL", "t")}
  - {UNIT.replace("NAME", "sales").replace("MODEL", "sales")}
""",
}


@pytest.fixture(scope="module")
def odd_world(tmp_path_factory):
    """The manifest of a project with names and folders that mean more, or something else, to dbt's selection."""
    folder = tmp_path_factory.mktemp("odd")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    subprocess.run(["dbt", "-q", "deps", "--project-dir", folder, "--profiles-dir", folder], check=True)
    return folder, run_dbt(folder, "parse")


@pytest.fixture
def _without_indirect_selection(monkeypatch):
    """Let dbt select as with `--indirect-selection empty`, which runs pass."""
    monkeypatch.setattr(NodeSelector, "expand_selection", lambda _self, selected, **_: (selected, set()))


def members(world):
    graph = build_graph(world)
    return [*graph.functions, *graph.nodes, *graph.tests]


@pytest.mark.usefixtures("_without_indirect_selection")
def test_words_select_exactly_one_node_test_or_function(odd_world):
    folder, world = odd_world
    chosen, selector = invocations_of(world), DbtSelector(world, folder, folder)
    graph = build_graph(world)
    for uid in members(world):
        kinds = ([one for one in [uid] if one in kind] for kind in (graph.nodes, graph.tests, graph.functions))
        nodes, tests, functions = kinds
        arguments = chosen.arguments(commands.Invocation(), nodes, tests, ["build"], functions)
        selected = arguments[arguments.index("--select") + 1]
        exclude = arguments[arguments.index("--exclude") + 1] if "--exclude" in arguments else ""
        assert selector.select(selected, exclude) & set(members(world)) == {uid}, arguments


def test_a_run_for_everything_selects_everything(odd_world):
    folder, world = odd_world
    del folder
    graph, chosen = build_graph(world), invocations_of(world)
    arguments = chosen.arguments(
        commands.Invocation(), list(graph.nodes), list(graph.tests), ["build"], list(graph.functions)
    )
    assert arguments == ["build", "--select", "fqn:*"]


def test_nodes_of_one_file_that_only_a_word_to_exclude_tells_apart():
    """Two snapshots of one file, one of which is named like the other up to a dot."""
    snapshots = [
        model(name, resource_type="snapshot", original_file_path="snapshots/kept.sql", fqn=["shop", "kept", name])
        for name in ("kept", "kept.all")
    ]
    chosen = invocations_of(manifest([*snapshots, model("a")]))
    kept, kept_all = (snapshot["unique_id"] for snapshot in snapshots)
    select = chosen.arguments(commands.Invocation(), [kept], [], ["build"])
    assert select[-2:] == ["--exclude", "shop.kept.kept.all"]
    assert "--exclude" not in chosen.arguments(commands.Invocation(), [kept, kept_all], [], ["build"])


def test_nodes_that_dbt_cannot_tell_apart_are_not_built():
    twins = [model(name, fqn=["shop", "twin"], original_file_path="models/twin.sql") for name in ("one", "two")]
    chosen = invocations_of(manifest([*twins, model("a")]))
    with pytest.raises(InvalidSelectionError, match=r"cannot tell model\.shop\.two from what this run builds"):
        chosen.arguments(commands.Invocation(), ["model.shop.one"], [], ["build"])


def test_tests_that_dbt_cannot_tell_apart_run_together():
    twins = [data_test("t", "a", unique_id=f"test.shop.t.{number}") for number in (1, 2)]
    chosen = invocations_of(manifest([*twins, model("a")]))
    (selected,) = chosen.arguments(commands.Invocation(), [], ["test.shop.t.1"], ["build"])[2:]
    assert selected.startswith("shop.t")


@pytest.mark.usefixtures("_without_indirect_selection")
@since_functions
def test_single_words_mean_what_dbt_takes_them_for(odd_world):
    folder, world = odd_world
    ours, dbts = WordSelector(world, folder, folder), DbtSelector(world, folder, folder)
    entries = {**world["nodes"], **world["unit_tests"], **world["functions"]}
    names = {".".join(entry["fqn"][:end]) for entry in entries.values() for end in range(1, len(entry["fqn"]) + 1)}
    words = {escaped(name) for name in names} | {escaped(name.split(".", 1)[-1]) for name in names}
    words |= {word.replace("_", ".") for word in words} | {word.replace(".", "_") for word in words}
    words |= {
        "fqn:*",
        "shop.*",
        "t*",
        "shop.orders.v?",
        "shop.my?folder.*",
        "file:t,resource_type:model",
        "package:util",
    }
    for word in words:
        assert ours.select([word]) == dbts.select(word, "") & entries.keys(), word

"""What a run tells dbt: which commands, in which order, and words that select exactly what is meant."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dagster_sao.core.decide import Action, Decision, Reason
from dagster_sao.core.graph import build_graph
from dagster_sao.orchestration import invocations
from dagster_sao.orchestration.dbt_private import DbtSelector
from dagster_sao.orchestration.invocations import Invocations
from tests.conftest import run_dbt
from tests.core.manifests import data_test, function, manifest, model, with_functions

F, G = "function.shop.f", "function.shop.g"
WORDS = {F: "shop.f,resource_type:function", G: "shop.g,resource_type:function"}


def invocations_of(world, *, refreshed=()):
    graph = build_graph(world)
    loaded = SimpleNamespace(project=SimpleNamespace(graph=graph), manifest=world)
    decisions = {
        uid: Decision(Action.BUILD, Reason.REQUESTED, "", full_refresh=node.name in refreshed)
        for uid, node in graph.nodes.items()
    }
    return Invocations(loaded, decisions)


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
        (["build"], [A, B], [T], [F, G], ["build", "--select", f"{WORDS[F]} {WORDS[G]} shop.a shop.b shop.t"]),
        (["build"], [A, B, C], [T], [F, G], ["build", "--select", "fqn:*"]),
        (["build"], [A, B, C], [T], [F], ["build", "--select", f"{WORDS[F]} shop.a shop.b shop.c shop.t"]),
        (["build"], [], [T], [], ["test", "--select", "shop.t"]),
        (["build"], [], [], [F], ["build", "--select", WORDS[F]]),
        (["run"], [A], [], [], ["run", "--select", "shop.a"]),
        (["run"], [B], [], [F, G], ["build", "--select", f"{WORDS[F]} {WORDS[G]} shop.b"]),
        (["snapshot", "--quiet"], [B], [], [G], ["build", "--quiet", "--select", f"{WORDS[G]} shop.b"]),
    ],
)
def test_dbt_is_told_of_functions_by_a_command_that_creates_them(args, nodes, tests, functions, expected):
    chosen = invocations_of(shop())
    (invocation,) = chosen.choose([*nodes, *tests]) or [invocations.Invocation()]
    assert chosen.arguments(invocation, nodes, tests, args, functions) == expected


def test_a_function_that_nothing_calls_is_not_taken_for_everything():
    world = shop()
    world["functions"]["function.shop.lonely"] = function("lonely")
    chosen = invocations_of(world)
    (invocation,) = chosen.choose([A, B, C, T])
    assert "fqn:*" not in chosen.arguments(invocation, [A, B, C], [T], ["build"], [F, G])


@pytest.mark.parametrize("longest", [40, 80, 120, 200])
def test_each_piece_of_a_long_selection_is_short_with_the_functions_that_it_creates(monkeypatch, longest):
    monkeypatch.setattr(invocations, "_LONGEST_SELECTION", longest)
    chosen = invocations_of(shop(materialized="incremental"), refreshed={"c"})
    created = set()
    for piece in chosen.choose([A, T, B, C]):
        functions = chosen.functions(piece.nodes, piece.tests, created)
        created |= set(functions)
        words = chosen.arguments(piece, piece.nodes, piece.tests, ["build"], functions)[-1].split()
        assert len(words) == 1 or sum(len(word) + 1 for word in words) <= longest
    assert created == {F, G}


# On real dbt


FILES = {
    "dbt_project.yml": "{name: shop, version: 1.0.0, profile: shop, flags: {send_anonymous_usage_stats: false}}",
    "profiles.yml": "shop: {target: dev, outputs: {dev: {type: duckdb, path: ':memory:'}}}",
    "functions/taxed.sql": "select x",
    "functions/taxed/inner.sql": "select x",
    "functions/of two words/spaced.sql": "select x",
    "functions/orders.sql": "select x",
    "functions/in_folder/late.sql": "select x",
    "models/orders.sql": "select 1 as id",
    "models/taxed.sql": "select {{ function('inner') }}(1) as id",
    "models/in_folder.sql": "select {{ function('late') }}(1) as id",
}


def test_words_select_exactly_one_function_or_node(tmp_path):
    names = [name.rsplit("/", 1)[1][:-4] for name in FILES if name.startswith("functions/")]
    properties = [f"{{name: {name}, arguments: [], returns: {{data_type: integer}}}}" for name in names]
    for name, text in {**FILES, "functions/f.yml": f"functions: [{', '.join(properties)}]"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    world = run_dbt(tmp_path, "parse")
    chosen, selector = invocations_of(world), DbtSelector(world, tmp_path, tmp_path)
    graph = build_graph(world)
    for functions, nodes in [*(([uid], []) for uid in graph.functions), *(([], [uid]) for uid in graph.nodes)]:
        word = chosen.arguments(invocations.Invocation(), nodes, [], ["build"], functions)[-1]
        assert selector.select(word, "") == {*functions, *nodes}, word

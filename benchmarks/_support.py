"""What the benchmarks share: a made-up dbt project, a clock that counts CPU seconds, and a table."""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.decision.run_ledger import Ledger
from dagster_sao.core.manifest.policy import read_policy
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import SourceState, StateSnapshot, VerdictStatus

PROJECT = "bench"
LAYERS = 8
_MACROS = 40
_BETWEEN_TESTS = timedelta(milliseconds=100)
_TESTS = ("unique", "not_null", "relationships")
_MACROS_OF_TESTS = (*(f"macro.dbt.test_{name}" for name in _TESTS), "macro.dbt.get_where_subquery")
_SQL = """
with recent as (

    select
        id,
        customer_{n},
        cast(sum(quantity) as bigint) as item_count,
        cast(sum(revenue_cents) as bigint) as subtotal_cents,
        max(loaded_at) as loaded_at
    from {first}
    where status in ('placed', 'returned') and quantity > {n}
    group by id, customer_{n}

)

select
    recent.id,
    recent.customer_{n},
    coalesce(recent.item_count, 0) as item_count,
    -- what is owed, in cents
    recent.subtotal_cents - coalesce(recent.item_count, 0) * {n} as balance_cents,
    recent.loaded_at
from recent
{joins}
"""


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds that this process spends on `work`, all its threads together."""
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def median_cpu(work: Callable[[], object], repeats: int, before: Callable[[], object] = lambda: None) -> float:
    """Return the median CPU seconds of `work`, each time after `before`, which is not counted."""
    spent = []
    for _ in range(repeats):
        before()
        spent.append(cpu_seconds(work))
    return statistics.median(spent)


def time_of_dbt(instance: dg.DagsterInstance, run_id: str) -> float:
    """Return when a run first started dbt, in seconds since the epoch."""
    return min(event.timestamp for event in instance.all_logs(run_id) if "Running dbt command" in event.user_message)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> None:
    """Print a table of figures."""
    table = Table(title=title, caption=note or None, caption_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=max(Console().width, 140)).print(table)


def synthetic_manifest(models: int, *, with_tests: bool = False) -> dict[str, Any]:
    """Return a manifest of `models` models in 8 layers over a tenth as many sources, on request with three tests per model.

    The first layer holds views on sources. Above it are tables, incremental models and views, each on two or three
    models that stand near it, mostly in the layer below. So a source reaches a narrow cone of models, as in real projects.
    The tests are `unique`, `not_null` and `relationships` to the first parent.
    """
    chance = random.Random(models)
    sources = [f"source.{PROJECT}.raw.s{n}" for n in range(max(models // 10, 1))]
    layers = [range(models * n // LAYERS, models * (n + 1) // LAYERS) for n in range(LAYERS)]
    nodes = {}
    for depth, layer in enumerate(layers):
        for n in layer:
            place = (n - layer.start) / len(layer)
            if depth == 0:
                parents = [sources[int(place * len(sources))]]
            else:
                below = [layers[depth - 1], layers[depth - 1], *chance.sample(layers[:depth], chance.random() < 0.3)]
                parents = list(dict.fromkeys(_model(_near(place, one, chance)) for one in below))
            nodes[_model(n)] = _node(n, depth, parents, chance)
    if with_tests:
        nodes.update({test["unique_id"]: test for n in range(models) for test in _tests(nodes[_model(n)])})
    children: dict[str, list[str]] = {uid: [] for uid in (*sources, *nodes)}
    for uid, node in nodes.items():
        for parent in node["depends_on"]["nodes"]:
            children[parent].append(uid)
    return {
        "metadata": {
            "dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json",
            "dbt_version": "1.11.0",
            "project_name": PROJECT,
            "adapter_type": "duckdb",
        },
        "nodes": nodes,
        "sources": {uid: _source(uid) for uid in sources},
        "macros": {
            **{f"macro.{PROJECT}.m{n}": _macro(n) for n in range(_MACROS)},
            **({uid: _macro_of_dbt(uid) for uid in _MACROS_OF_TESTS} if with_tests else {}),
        },
        "child_map": children,
        "parent_map": {uid: node["depends_on"]["nodes"] for uid, node in nodes.items()},
        **{name: {} for name in ("docs", "exposures", "metrics", "groups", "selectors", "disabled", "group_map")},
        **{name: {} for name in ("saved_queries", "semantic_models", "unit_tests", "functions")},
    }


def write_dbt_project(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a project of which only the manifest is there."""
    (folder / "target").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(f"name: {PROJECT}\nprofile: {PROJECT}\n")
    (folder / "profiles.yml").write_text(
        f"{PROJECT}: {{target: d, outputs: {{d: {{type: duckdb, path: d.duckdb}}}}}}\n"
    )
    (folder / "target" / "manifest.json").write_text(json.dumps(manifest))


def read_project(manifest: Mapping[str, Any], cache: MutableMapping[str, str]) -> Project:
    """Return what a manifest says, as `dagster_sao.orchestration.project.orchestrated.load_manifest` does but for the files."""
    fingerprinter = Fingerprinter(manifest, cache=cache)
    graph = fingerprinter.graph
    return Project(
        graph=graph,
        fingerprints=fingerprinter.fingerprints(),
        policies={uid: read_policy(manifest["nodes"][uid]).policy for uid in graph.nodes},
        selects_star=frozenset(uid for uid, node in graph.nodes.items() if fingerprinter.selects_star(node)),
    )


def built_state(project: Project, now: datetime) -> StateSnapshot:
    """Return the state after one run that built everything, an hour ago, and in which all tests passed."""
    started_at, run_id = now - timedelta(hours=1), "first run"
    ended_at = started_at + timedelta(seconds=9)
    tokens = {uid: SourceState(f"token of {uid}", started_at) for uid in project.graph.sources}
    ledger = Ledger(project, StateSnapshot(sources=tokens))
    builds = {
        uid: ledger.record(uid, started_at=started_at, ended_at=ended_at, run_id=run_id) for uid in project.graph.nodes
    }
    # Each at a moment of its own, as dbt reports them.
    verdicts = {
        uid: ledger.verdict(test, VerdictStatus.PASS, at=ended_at + n * _BETWEEN_TESTS, run_id=run_id, failures=0)
        for n, (uid, test) in enumerate(project.graph.tests.items())
    }
    return StateSnapshot(builds=builds, sources=tokens, verdicts=verdicts)


def changed_sources(project: Project) -> list[str]:
    """Return 1 % of the sources, spread over the project."""
    return list(project.graph.sources)[::100]


def with_new_tokens(state: StateSnapshot, sources: Iterable[str], now: datetime) -> StateSnapshot:
    """Return `state` with new data in `sources`."""
    return replace(state, sources={**state.sources, **{uid: SourceState("new", now) for uid in sources}})


def _near(place: float, layer: range, chance: random.Random) -> int:
    position = int(place * len(layer)) + chance.randint(-2, 2)
    return layer[min(max(position, 0), len(layer) - 1)]


def _model(n: int) -> str:
    return f"model.{PROJECT}.m{n}"


def _node(n: int, depth: int, parents: list[str], chance: random.Random) -> dict[str, Any]:
    materialized = "view" if depth == 0 else chance.choices(["table", "incremental", "view"], [60, 25, 15])[0]
    freshness = None
    if materialized != "view" and chance.random() < 0.3:
        updates_on = chance.choices(["any", "all"], [2, 1])[0]
        freshness = {"build_after": {"count": chance.choice([1, 30]), "period": "minute", "updates_on": updates_on}}
    macros = [f"macro.{PROJECT}.m{m}" for m in chance.sample(range(_MACROS), chance.randint(0, 2))]
    config = {
        "enabled": True, "alias": None, "schema": None, "database": None, "tags": [], "meta": {}, "group": None,
        "materialized": materialized, "incremental_strategy": None, "batch_size": None, "lookback": 1, "begin": None,
        "persist_docs": {}, "post-hook": [], "pre-hook": [], "quoting": {}, "column_types": {}, "full_refresh": None,
        "unique_key": "id" if materialized == "incremental" else None, "on_schema_change": "ignore",
        "on_configuration_change": "apply", "grants": {}, "packages": [], "docs": {"show": True, "node_color": None},
        "contract": {"enforced": False, "alias_types": True}, "event_time": None, "concurrent_batches": None,
        "access": "protected", **({"freshness": freshness} if freshness else {}),
    }  # fmt: skip
    return {
        **_resource("model", f"m{n}", f"layer_{depth}"),
        "unique_id": _model(n),
        "alias": f"m{n}",
        "checksum": {"name": "sha256", "checksum": f"{n:064x}"},
        "config": config,
        "unrendered_config": {"materialized": materialized, **({"freshness": freshness} if freshness else {})},
        "raw_code": _sql(n, depth, parents, macros),
        "language": "sql",
        "refs": [{"name": p.rsplit(".", 1)[1], "package": None, "version": None} for p in parents if p[0] == "m"],
        "sources": [p.split(".")[2:] for p in parents if p[0] == "s"],
        "depends_on": {"macros": macros, "nodes": parents},
        "access": "protected",
        "version": None,
        "constraints": [],
        "contract": {"enforced": False, "alias_types": True, "checksum": None},
    }


def _tests(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [_test(name, number, model) for number, name in enumerate(_TESTS)]


def _test(kind: str, number: int, model: Mapping[str, Any]) -> dict[str, Any]:
    name, to = f"{kind}_{model['name']}_id", model["depends_on"]["nodes"][0]
    arguments = {"column_name": "id", "model": f"{{{{ get_where_subquery(ref('{model['name']}')) }}}}"}
    reads = [model["unique_id"]]
    refs, sources = [{"name": model["name"], "package": None, "version": None}], []
    if kind == "relationships":
        is_source = to.startswith("source.")
        reads = [to, *reads]
        called = f"source('raw', '{to.rsplit('.', 1)[1]}')" if is_source else f"ref('{to.rsplit('.', 1)[1]}')"
        arguments |= {"to": called, "field": "id"}
        sources = [to.split(".")[2:]] if is_source else []
        refs = [*([] if is_source else [{**refs[0], "name": to.rsplit(".", 1)[1]}]), *refs]
    return {
        **_resource("test", name, "schema"),
        "unique_id": f"test.{PROJECT}.{name}.{int(model['checksum']['checksum'], 16):09x}{number}",
        "original_file_path": "models/schema.yml",
        "alias": name,
        "checksum": {"name": "none", "checksum": ""},
        "relation_name": None,
        "config": {
            "enabled": True, "alias": None, "schema": "dbt_test__audit", "database": None, "tags": [], "meta": {},
            "group": None, "static_analysis": None, "materialized": "test", "severity": "ERROR", "store_failures": None,
            "store_failures_as": None, "where": None, "limit": None, "fail_calc": "count(*)", "warn_if": "!= 0",
            "error_if": "!= 0",
        },
        "unrendered_config": {},
        "raw_code": f"{{{{ test_{kind}(**_dbt_generic_test_kwargs) }}}}",
        "language": "sql",
        "refs": refs,
        "sources": sources,
        "metrics": [],
        "functions": [],
        "depends_on": {"macros": [f"macro.dbt.test_{kind}", "macro.dbt.get_where_subquery"], "nodes": reads},
        "contract": {"enforced": False, "alias_types": True, "checksum": None},
        "column_name": "id",
        "file_key_name": f"models.{model['name']}",
        "attached_node": model["unique_id"],
        "test_metadata": {"name": kind, "kwargs": arguments, "namespace": None},
    }  # fmt: skip


def _sql(n: int, depth: int, parents: list[str], macros: list[str]) -> str:
    names = [parent.rsplit(".", 1)[1] for parent in parents]
    if depth == 0:
        return f"select * from {{{{ source('raw', '{names[0]}') }}}} where id <> {n}"
    joins = "\n".join(f"left join {{{{ ref('{name}') }}}} as {name} on {name}.id = recent.id" for name in names[1:])
    calls = "".join(f"\n-- {{{{ {macro.rsplit('.', 1)[1]}('id') }}}}" for macro in macros)
    return _SQL.format(n=n, first=f"{{{{ ref('{names[0]}') }}}}", joins=joins) + calls


def _macro(n: int) -> dict[str, Any]:
    # Every fourth macro calls another one.
    called = [f"macro.{PROJECT}.m{n + 1}"] if n % 4 == 0 else []
    sql = f"{{% macro m{n}(cents) -%}}\n    cast(({{{{ cents }}}}) / {n} as decimal(18, 2))\n{{%- endmacro %}}"
    return {
        **_resource("macro", f"m{n}", "macros"),
        "unique_id": f"macro.{PROJECT}.m{n}",
        "macro_sql": sql,
        "depends_on": {"macros": called},
    }


def _macro_of_dbt(unique_id: str) -> dict[str, Any]:
    name = unique_id.rsplit(".", 1)[1]
    sql = (
        f"{{% macro {name}(model, column_name) %}}\n    {{{{ return(adapter.dispatch('{name}', 'dbt')(model, column_name)) }}}}"
        "\n{% endmacro %}"
    )
    return {
        **_resource("macro", name, "macros"),
        "package_name": "dbt",
        "unique_id": unique_id,
        "macro_sql": sql,
        "depends_on": {"macros": []},
    }


def _source(unique_id: str) -> dict[str, Any]:
    name = unique_id.rsplit(".", 1)[1]
    return {
        **_resource("source", name, "raw"),
        "unique_id": unique_id,
        "source_name": "raw",
        "source_description": "",
        "identifier": name,
        "loader": "",
        "loaded_at_field": "loaded_at",
        "freshness": None,
        "external": None,
        "config": {"enabled": True, "meta": {}, "loaded_at_field": "loaded_at"},
        "unrendered_config": {},
    }


def _resource(resource_type: str, name: str, folder: str) -> dict[str, Any]:
    return {
        "resource_type": resource_type,
        "name": name,
        "package_name": PROJECT,
        "path": f"{folder}/{name}.sql",
        "original_file_path": f"models/{folder}/{name}.sql",
        "fqn": [PROJECT, folder, name],
        "database": PROJECT,
        "schema": folder,
        "relation_name": f'"{PROJECT}"."{folder}"."{name}"',
        "description": f"What {name} holds",
        "columns": {},
        "meta": {},
        "tags": [],
        "group": None,
        "docs": {"show": True, "node_color": None},
        "patch_path": None,
        "created_at": 0.0,
    }

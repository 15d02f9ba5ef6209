"""A dbt project of forty models in five layers, and what its relations must hold: each is also a view in a schema `truth`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.conftest import run_dbt

LAYERS, WIDTH, SOURCES = 5, 8, 4
MODELS = {
    f"m{layer}_{place}": [f"m{layer - 1}_{place}", f"m{layer - 1}_{(place + 3) % WIDTH}"] if layer else []
    for layer in range(LAYERS)
    for place in range(WIDTH)
}
VIEWS = {model for number, model in enumerate(MODELS) if model[1] in "13" and number % 3 == 0}
Execute = Callable[[str], list[tuple]]

_PROJECT = """
name: shop
profile: shop
flags: {send_anonymous_usage_stats: false}
models:
  +pre-hook: [{sql: "{% if target.name == 'audited' %}select audit.enter('{{ this.name }}'); commit{% endif %}", transaction: false}]
  +post-hook: [{sql: "{% if target.name == 'audited' %}select audit.leave('{{ this.name }}'); commit{% endif %}", transaction: false}]
"""
_SOURCES = "sources: [{name: raw, schema: raw, loaded_at_field: loaded_at, tables: [%s]}]"


def write_project(folder: Path, target: str, connection: str) -> None:
    """Write and parse the project; `target` names the output that runs use, `connection` is what outputs have in common."""
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(_PROJECT)
    outputs = "".join(
        f"    {name}: {{{connection}, schema: {schema}, threads: 2}}\n"
        for name, schema in ((target, "shop"), ("truth", "truth"), ("full", "whole"))
    )
    (folder / "profiles.yml").write_text(f"shop:\n  target: {target}\n  outputs:\n{outputs}")
    names = ", ".join(f"{{name: s{number}}}" for number in range(SOURCES))
    (folder / "models" / "sources.yml").write_text(_SOURCES % names)
    for number, (model, parents) in enumerate(MODELS.items()):
        (folder / "models" / f"{model}.sql").write_text(_sql(number, model, parents))
    run_dbt(folder, "parse")


def build_all(folder: Path, target: str) -> None:
    """Build everything in the schema of another target."""
    # In a process of its own, which leaves no connection open.
    command = [sys.executable, "-m", "dbt.cli.main", "--quiet", "run", "--target", target]
    subprocess.run([*command, "--project-dir", str(folder), "--profiles-dir", str(folder)], check=True)
    # Runs read the manifest of their own target.
    run_dbt(folder, "parse")


def _sql(number: int, model: str, parents: list[str]) -> str:
    stored = "view" if model in VIEWS else "table"
    if parents:
        rows = " union all ".join(f"select id, n from {{{{ ref('{parent}') }}}}" for parent in parents)
    else:
        rows = f"select id, n from {{{{ source('raw', 's{number % SOURCES}') }}}}"
    is_slow = stored == "table" and number % 4 == 1
    sleep = f"{{% if target.name == 'audited' %}}, (select pg_sleep({0.05 * (1 + number % 6)})) pause{{% endif %}}"
    return (
        f"{{{{ config(materialized='view' if target.name == 'truth' else '{stored}') }}}}\n"
        f"select id, cast(sum(n) + {number} as bigint) as n from ({rows}) r{sleep if is_slow else ''} group by id\n"
    )


def create_sources(execute: Execute) -> None:
    execute("create schema raw")
    for number in range(SOURCES):
        execute(f"create table raw.s{number} (id int, n int, loaded_at timestamp)")
        load(execute, [number], 0)


def load(execute: Execute, sources: Iterable[int], row: int) -> None:
    """Load a row into each of `sources`; each `row` is a second later."""
    for number in sources:
        moment = f"timestamp '2026-01-01' + interval '1 second' * {row}"
        execute(f"insert into raw.s{number} values ({row}, {row + 1}, {moment})")


def below(sources: Iterable[int]) -> set[str]:
    """Return the models that read of `sources`."""
    changed = {f"m0_{place}" for place in range(WIDTH) if place % SOURCES in set(sources)}
    for model, parents in MODELS.items():
        if changed & set(parents):
            changed.add(model)
    return changed


def differing(execute: Execute, models: Iterable[str], schema: str = "shop") -> list[str]:
    """Return the models that do not hold what a full build would store now; a missing one raises the driver's error."""
    return [
        model
        for model in models
        if sorted(execute(f"select id, n from {schema}.{model}")) != sorted(execute(f"select id, n from truth.{model}"))
    ]

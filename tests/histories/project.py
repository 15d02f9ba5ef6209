"""The dbt project under test, as text with holes that edits fill. Two targets: the warehouse and the oracle."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tests.histories.readers import (
    DIALS,
    FILES,
    HELPERS,
    MOVED,
    MOVED_SQL,
    PACKAGES,
    PAIR,
    READERS,
    SEED_HOOK,
    VARIABLES,
    filled,
)

NAME = "shop"
WAREHOUSE, ORACLE = "warehouse", "oracle"

_PROJECT = """
name: shop
version: "1.0"
profile: shop
vars:
  scale: {scale}
  unused: {unused}
{variables}
seeds: {{shop: {{rates: {{+post-hook: "{seed_hook}"}}}}}}
flags:
  send_anonymous_usage_stats: false
"""
_PROFILES = """
shop:
  target: warehouse
  outputs:
    warehouse: {type: duckdb, path: "PATH/warehouse.duckdb", threads: 1}
    oracle: {type: duckdb, path: "PATH/oracle.duckdb", threads: 1}
"""
_SOURCES = """
sources:
  - name: raw
    schema: raw
    tables:
      - name: plain
        columns:
          - name: grp
            data_tests: [accepted_values: {name: plain_groups, arguments: {values: [a, b, c]}}]
      - name: window
      - name: wide
      - name: events
        config: {loaded_at_field: loaded_at}
      - name: ledger
        config: {loaded_at_query: "select max(finished_at) from {{ this.database }}.raw.loads"}
  - name: files
    tables:
      - name: people
        config: {external_location: "PATH/people.csv"}
"""
_PROPERTIES = """
models:
  - name: t_totals
    columns:
      - {{name: grp, data_tests: [not_null: {{name: totals_groups}}]}}
  - name: t_people
    columns:
      - {{name: id, data_tests: [unique: {{name: people_ids, config: {{severity: {people_severity}}}}}]}}
  - name: t_windowed
    columns:
      - name: grp
        data_tests:
          - accepted_values: {{name: windowed_groups, arguments: {{values: {windowed_values}}}, config: {{severity: warn}}}}
  - name: stg_events
    columns:
      - {{name: amount, data_tests: [not_null: {{name: events_amounts}}]}}
  - name: inc_events
    columns:
      - {{name: amount, data_tests: [not_null: {{name: inc_amounts}}]}}
  - name: v_top
    columns:
      - {{name: grp, data_tests: [{top_tests}]}}
unit_tests:
  - name: windowed_counts
    model: t_windowed
    given: [{{input: ref('stg_events'), rows: [{{grp: a}}, {{grp: a}}]}}]
    expect: {{rows: [{{grp: a, events: {unit_events}}}]}}
"""
# Reads two models, so it gates only what is below both; and one of severity warn on a view.
_SINGULAR = {
    "totals_signs": (
        "select * from {{ ref('t_totals') }} where total < 0 and grp in (select grp from {{ ref('stg_events') }})"
    ),
    "plain_signs": "{{ config(severity='warn') }} select * from {{ ref('stg_plain') }} where value like '-%'",
}
_ADDED_TEST = "not_null: {name: top_groups}"
TRUTH = {
    "plain_groups": "select * from raw.plain where grp not in ('a', 'b', 'c')",
    "totals_groups": "select * from main.t_totals where grp is null",
    "people_ids": "select id from main.t_people group by id having count(*) > 1",
    "events_amounts": "select * from main.stg_events where amount is null",
    "inc_amounts": "select * from main.inc_events where amount is null",
    "totals_signs": "select * from main.t_totals where total < 0 and grp in (select grp from main.stg_events)",
    "snap_groups": "select * from main.snap_plain where dbt_valid_to is null and grp not in ('a', 'b', 'c')",
}
"""What each data test of severity error looks for, as its author would ask it."""
TESTS_OF_HISTORY = frozenset({"snap_groups", "inc_amounts"})
"""Tests of what keeps rows that a full build would not make."""
_MACROS = """
{{% macro times(column) %}}{{{{ column }}}} * {factor}{comment}{{% endmacro %}}
"""
_SNAPSHOT = """
snapshots:
  - name: snap_plain
    relation: source('raw', 'plain')
    config: {schema: main, unique_key: id, strategy: check, check_cols: all}
    columns:
      - name: grp
        data_tests:
          - accepted_values:
              {name: snap_groups, arguments: {values: [a, b, c]}, config: {where: "dbt_valid_to is null"}}
"""

# Each model ends with `{extra}`, one more column, so that an edit of the code shows in the rows.
_MODELS = {
    "stg_plain": "select id, value, grp{extra} from {{{{ source('raw', 'plain') }}}}",
    "stg_events": "select *{extra} from {{{{ source('raw', 'events') }}}}",
    "eph_people": "select id, name, grp{extra} from {{{{ source('files', 'people') }}}}",
    "v_joined": (
        "select e.id, e.grp, p.value{extra} from {{{{ ref('stg_events') }}}} e join {{{{ ref('stg_plain') }}}} p using (grp)"
    ),
    "t_totals": (
        "select grp, {{{{ times('sum(cast(value as integer))') }}}} * {{{{ var('scale') }}}} as total{extra}"
        " from {{{{ ref('v_joined') }}}} group by grp"
    ),
    "t_people": (
        "select p.id, p.name, r.rate{extra} from {{{{ ref('eph_people') }}}} p left join {{{{ ref('rates') }}}} r using (grp)"
    ),
    "t_windowed": "select grp, count(*) as events{extra} from {{{{ ref('stg_events') }}}} group by grp",
    "t_all": (
        "select 'ledger' as side, count(*) as n, sum(amount) as s{extra} from {{{{ source('raw', 'ledger') }}}} union all"
        " select 'events', count(*), sum(amount){extra} from {{{{ source('raw', 'events') }}}}"
    ),
    "t_window": "select max(value) as largest, count(*) as n{extra} from {{{{ source('raw', 'window') }}}}",
    "t_top": (
        "select t.*, w.events{extra} from {{{{ ref('t_totals') }}}} t left join {{{{ ref('t_windowed') }}}} w using (grp)"
    ),
    "v_top": "select *{extra} from {{{{ ref('t_top') }}}}",
    "inc_events": (
        "select id, grp, amount, loaded_at{extra} from {{{{ ref('stg_events') }}}}"
        " {{% if is_incremental() %}}where loaded_at > (select max(loaded_at) from {{{{ this }}}}){{% endif %}}"
    ),
    "t_from_inc": "select grp, count(*) as n{extra} from {{{{ ref('inc_events') }}}} group by grp",
    "t_census": "select count(*) as n, count(distinct id) as ids{extra} from {{{{ ref('t_people') }}}}",
    "t_clock": "select current_timestamp as built_at, count(*) as n{extra} from {{{{ ref('t_people') }}}}",
}
_CONFIGS: dict[str, dict[str, str]] = {
    "stg_plain": {"materialized": "'view'"},
    "stg_events": {"materialized": "'view'"},
    "eph_people": {"materialized": "'ephemeral'"},
    "v_joined": {"materialized": "'view'"},
    "v_top": {"materialized": "'view'"},
    "inc_events": {
        "materialized": "'incremental'",
        "unique_key": "'id'",
        "on_schema_change": "'sync_all_columns'",
        "meta": "{'dagster_sao': {'on_code_change': 'full_refresh'}}",
    },
    "t_windowed": {"freshness": "{'build_after': {'count': 2, 'period': 'hour'}}"},
    "t_all": {"freshness": "{'build_after': {'updates_on': 'all'}}"},
}
MODELS = tuple(_MODELS)
SWITCHED_MODELS = ("stg_plain", "v_joined", "t_totals", "t_top", "v_top", "t_people")
"""Models whose materialization an edit switches between table and view."""

NODES = (*(name for name in MODELS if name != "eph_people"), "rates", "snap_plain", *READERS)
"""All that is built."""

NOT_COMPARED = frozenset({"t_clock", "snap_plain", "t_this", "t_from_this", *PAIR})
"""What depends on when, or how often, it was built."""
INCREMENTAL = frozenset({"inc_events", "t_from_inc"})
BELOW_UNTRACKED = frozenset({"t_window"})

DOUBLED = "cross join (values (1), (2)) as twice(time)"
"""Appended to `t_people`, it makes each row appear twice, which its test does not allow."""

ORIGINAL_RATES = (("a", 2), ("b", 3))


@dataclass
class Model:
    """What edits made of one model."""

    extra: str = ""
    decoration: str = ""
    config: dict[str, str] = field(default_factory=dict)


class ProjectFiles:
    """The project's folder. Every edit is written at once; `revision` counts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reset()
        for name in (
            "models/moved",
            "macros",
            "seeds",
            "snapshots",
            "tests",
            "packages/helpers/macros",
            "dbt_packages",
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # As `dbt deps` does with a local package.
        (folder / "dbt_packages" / "helpers").symlink_to(folder / "packages" / "helpers")
        self._write("packages.yml", PACKAGES)
        self._write("packages/helpers/dbt_project.yml", HELPERS)
        self._write("profiles.yml", _PROFILES.replace("PATH", str(folder)))
        self._write("models/sources.yml", _SOURCES.replace("PATH", str(folder)))
        for name, sql in _SINGULAR.items():
            self._write(f"tests/{name}.sql", sql)
        self._write("snapshots/snapshots.yml", _SNAPSHOT)
        self.write()

    def reset(self) -> None:
        """Return to the project as it was at first."""
        self.revision = 0
        self.scale, self.unused, self.factor, self.macro_comment = 1, 0, 1, ""
        self.rates, self.has_precise_rates = list(ORIGINAL_RATES), False
        self.people_severity, self.windowed_values, self.has_added_test, self.unit_events = "error", "[a]", False, 2
        self.models = {name: Model(config=dict(_CONFIGS.get(name, {"materialized": "'table'"}))) for name in MODELS}
        for name in ("t_windowed", "t_all"):
            self.models[name].config.setdefault("materialized", "'table'")
        self.dials = dict(DIALS)
        self.moved_to: str | None = "models"
        """The folder of the file that is moved about; None: deleted."""
        self.moved_at = 0
        """When that file seems to have been written: 0 for now, else as if an older one was put in its place."""

    def write(self) -> None:
        """Write what differs from the files on disk, so that dbt parses no more than that."""
        self.revision += 1
        variables = filled(VARIABLES, self.dials)
        project = _PROJECT.format(scale=self.scale, unused=self.unused, variables=variables, seed_hook=SEED_HOOK)
        self._write("dbt_project.yml", project)
        properties = _PROPERTIES.format(
            people_severity=self.people_severity,
            windowed_values=self.windowed_values,
            top_tests=_ADDED_TEST if self.has_added_test else "",
            unit_events=self.unit_events,
        )
        self._write("models/properties.yml", properties)
        self._write("macros/times.sql", _MACROS.format(factor=self.factor, comment=self.macro_comment))
        rates = [("grp", "rate"), *self.rates]
        if self.has_precise_rates:
            rates = [("rate", "grp"), *((f"{rate}.25", grp) for grp, rate in self.rates)]
        self._write("seeds/rates.csv", "".join(f"{one},{other}\n" for one, other in rates))
        for name, model in self.models.items():
            self._write(f"models/{name}.sql", self._model_sql(name, model))
        for name, text in FILES.items():
            self._write(name, filled(text, self.dials))
        self._write_moved()

    def content(self) -> dict[str, str]:
        """Return the text of each file that a parse reads, by name."""
        folders = ("models", "macros", "seeds", "snapshots", "tests", "packages")
        found = (path for folder in folders for path in (self.folder / folder).rglob("*") if path.is_file())
        return {str(path): path.read_text(encoding="utf-8") for path in (*found, self.folder / "dbt_project.yml")}

    def _write_moved(self) -> None:
        paths = {folder: self.folder / folder / f"{MOVED}.sql" for folder in ("models", "models/moved")}
        kept = paths.pop(self.moved_to) if self.moved_to else None
        for path in paths.values():
            if path.exists() and kept is not None:
                path.rename(kept)  # keeps its time
            path.unlink(missing_ok=True)
        if (
            kept is not None
            and self._write(f"{self.moved_to}/{MOVED}.sql", filled(MOVED_SQL, self.dials))
            and self.moved_at
        ):
            os.utime(kept, (self.moved_at, self.moved_at))

    def _model_sql(self, name: str, model: Model) -> str:
        config = ", ".join(f"{key}={value}" for key, value in model.config.items())
        body = _MODELS[name].format(extra=model.extra)
        return f"{{{{ config({config}) }}}}\n{body}\n{model.decoration}"

    def _write(self, name: str, text: str) -> bool:
        """Write a file if it is another one. Returns whether it was."""
        path = self.folder / name
        is_other = not path.exists() or path.read_text(encoding="utf-8") != text
        if is_other:
            path.write_text(text, encoding="utf-8")
        return is_other

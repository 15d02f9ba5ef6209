"""A random dbt project: small tables, models over them, and data tests of every kind with every setting. One seed is one project.

All tables and models have the same columns, so that any test fits any of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

COLUMNS = ("id", "k", "s", "c", "d", "f")
_SOURCES = ("t", "u", "p")
_SEEDS = ("shades", "nothing")
_NUMBERS = ("id", "k", "f")
# `c` is compared without regard to case.
_TABLE = "create table raw.{} (id int, k int, s varchar(9), c {}, d date, f double precision)"
_COLLATIONS = {
    "duckdb": ("", "varchar collate nocase"),
    "postgres": (
        "create collation raw.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "varchar(9) collate raw.ci",
    ),
}
_CONDITIONS = (
    "id > 1", "k is null", "k is not null", "s in ('a', 'B') /* letters */", "s <> 'a' or k = 2", "d >= date '2020-01-02'",
    "f > 0.5", "not (id = k)", "c = 'a'", "k <> 0", "1=1 and\n  id >= 0", "s = 'it''s -- not' or id = /* the */ k", "1 = 0",
    "case when id > 1 then k else 0 end = 0", "length(s) < 3", "lower(s) = s", "id between 0 and 2", "id is not null",
)  # fmt: skip
# For some rows, these fail.
_RISKY = ("10 / (k - k) > 1", "cast(s as int) > 1")
_MODELS = (
    "select * from {a}",
    "select * from {a} where {condition}",
    "select id, k, s, c, d, f from {a} where id is not null",
    "select distinct * from {a}",
    "select a.id, b.k, a.s, b.c, a.d, a.f from {a} as a left join {b} as b on a.k = b.id",
    "select a.id, b.k, a.s, a.c, a.d, b.f from {a} as a inner join {b} as b on a.id = b.id",
    "select id, max(k) as k, min(s) as s, max(c) as c, max(d) as d, sum(f) as f from {a} group by id",
    "select * from {a} union all select * from {b}",
    (
        "with ranked as (select *, row_number() over (partition by id order by k, s, c, d, f) as place from {a})\n"
        "select id, k, s, c, d, f from ranked where place = 1"
    ),
    "select id, coalesce(k, 0) as k, lower(s) as s, c, d, coalesce(f, 0) as f from {a}",
    "select id, k, case when k > 1 then 'a' else 'b' end as s, c, d, f from {a}",
    "select * from {a} where exists (select 1 from {b} as other where other.id = {a}.id)",
    "select * from {a} where 1 = 0",
)
_MATERIALIZED = ("table", "table", "view", "view", "incremental", "ephemeral")
_GENERIC = """
{% test expression(model, expression, column_name=none) %}
select {% if should_store_failures() %}*{% else %}1{% endif %}
from {{ model }}
where not({{ (column_name ~ ' ' if column_name) ~ expression }})
{% endtest %}

{% test in_range(model, column_name, low, high) %}
with meet_condition as(
  select * from {{ model }}
),
validation_errors as (
  select * from meet_condition
  where
    -- never true, which makes the rest simple
    1 = 2
    or not {{ column_name }} >= {{ low }}
    or not {{ column_name }} <= {{ high }}
)
select * from validation_errors
{% endtest %}

{% test combination(model, columns) %}
with validation_errors as (
    select {{ columns | join(', ') }}
    from {{ model }}
    group by {{ columns | join(', ') }}
    having count(*) > 1
)
select * from validation_errors
{% endtest %}

{% test truth(model, expression, row_condition=none) %}
with grouped_expression as (
    select
        {{ expression }} as expression
    from {{ model }}
    {% if row_condition %}
    where
        {{ row_condition }}
    {% endif %}
),
validation_errors as (
    select *
    from grouped_expression
    where not(expression = true)
)
select * from validation_errors
{% endtest %}

{% test in_set(model, column_name, values) %}
with all_values as (
    select {{ column_name }} as value_field
    from {{ model }}
),
set_values as (
    {% for value in values %}
    select cast('{{ value }}' as varchar(9)) as value_field {{ 'union all' if not loop.last }}
    {% endfor %}
),
validation_errors as (
    select v.value_field
    from all_values as v
    left join set_values as s on v.value_field = s.value_field
    where s.value_field is null
)
select * from validation_errors
{% endtest %}

{% test at_least_one(model, column_name) %}
select * from (select count({{ column_name }}) as filled from {{ model }}) as counted where filled = 0
{% endtest %}

{% test first_ones(model, column_name) %}
select {{ column_name }} from {{ model }} where {{ column_name }} > 1 order by {{ column_name }} limit 2
{% endtest %}
"""
_SINGULAR = (
    "select * from {a} where {condition}",
    "-- why\nselect id, k as id_of_other from {a}\nwhere {condition} -- at the end",
    "select a.id from {a} as a inner join {b} as b on a.id = b.k where a.id > 2",
    "select s, count(*) as n from {a} group by s having count(*) > 3",
    "select id from {a} where {condition} union all select id from {b} where {condition}",
)


@dataclass(frozen=True)
class RandomProject:
    """The files of a project, what its database holds beforehand, and how dbt is called."""

    files: Mapping[str, str]
    statements: tuple[str, ...]
    arguments: tuple[str, ...]


def random_project(seed: int, adapter: str, *, models: int = 16, tests_per_relation: int = 6) -> RandomProject:
    """Return the project of a seed."""
    return _Maker(random.Random(seed), adapter, models, tests_per_relation).project()


class _Maker:
    def __init__(self, source: random.Random, adapter: str, models: int, tests_per_relation: int) -> None:
        self._source, self._adapter = source, adapter
        self._models, self._tests = models, tests_per_relation
        self._names = 0
        # Where every failing test holds what is below it, little is left to compare.
        self._strictness = source.choice([0.05, 0.2, 0.6])

    def project(self) -> RandomProject:
        source = self._source
        files: dict[str, str] = {"tests/generic/shapes.sql": _GENERIC, "models/raw.yml": ""}
        readable = [f"source('raw', '{name}')" for name in _SOURCES] + [f"ref('{name}')" for name in _SEEDS]
        tested = []
        for n in range(self._models):
            materialized = source.choice(_MATERIALIZED)
            query = source.choice(_MODELS).format(**self._parents(readable), condition=self._condition())
            files[f"models/m{n}.sql"] = f"{{{{ config(materialized='{materialized}') }}}}\n{query}\n"
            readable.append(f"ref('m{n}')")
            if materialized != "ephemeral":
                tested.append(f"m{n}")
        files["snapshots/kept.sql"] = (
            "{% snapshot kept %}{{ config(strategy='check', unique_key='id', check_cols=['k'], target_schema='main') }}\n"
            f"select * from {{{{ {source.choice(readable[5:])} }}}} where id is not null{{% endsnapshot %}}\n"
        )
        of = {name: self._properties(name, readable) for name in (*_SOURCES, *_SEEDS, *tested, "kept")}
        files["models/raw.yml"] = json.dumps(
            {"sources": [{"name": "raw", "schema": "raw", "tables": [of[name] for name in _SOURCES]}]}
        )
        files["models/models.yml"] = json.dumps({"models": [of[name] for name in tested]})
        files["seeds/seeds.yml"] = json.dumps({"seeds": [of[name] for name in _SEEDS]})
        files["snapshots/kept.yml"] = json.dumps({"snapshots": [of["kept"]]})
        for n in range(self._tests):
            query = source.choice(_SINGULAR).format(**self._parents(readable), condition=self._condition())
            files[f"tests/singular_{n}.sql"] = f"{{{{ config({self._inline_config()}) }}}}\n{query}\n"
        files.update({f"seeds/{name}.csv": self._seed(name) for name in _SEEDS})
        files["dbt_project.yml"] = json.dumps(self._dbt_project())
        return RandomProject(files, tuple(self._statements()), tuple(self._arguments()))

    def _dbt_project(self) -> Mapping[str, Any]:
        types = {"id": "int", "k": "int", "s": "varchar(9)", "c": "varchar(9)", "d": "date", "f": "double precision"}
        project: dict[str, Any] = {
            "name": "shop",
            "profile": "shop",
            "flags": {"send_anonymous_usage_stats": False, "require_generic_test_arguments_property": True},
            "seeds": {"shop": {"+column_types": types}},
        }
        if self._source.random() < 0.2:
            project["data_tests"] = {"shop": {"+store_failures": True}}
        return project

    def _arguments(self) -> Iterator[str]:
        yield from ("--threads", str(self._source.choice([1, 2, 4])))
        for flag, chance in (("--store-failures", 0.1), ("--warn-error", 0.05), ("--empty", 0.05)):
            if self._source.random() < chance:
                yield flag

    def _parents(self, readable: list[str]) -> Mapping[str, str]:
        # Mostly of late models, so that there are long chains.
        weights = range(1, len(readable) + 1)
        first, second = self._source.choices(readable, weights, k=2)
        return {"a": f"{{{{ {first} }}}}", "b": f"{{{{ {second} }}}}"}

    # Data.

    def _statements(self) -> Iterator[str]:
        setup, case_blind = _COLLATIONS[self._adapter]
        yield "create schema raw"
        if setup:
            yield setup
        for name in _SOURCES:
            yield _TABLE.format(name, case_blind)
            rows = ", ".join(f"({', '.join(row)})" for row in self._rows())
            if rows:
                yield f"insert into raw.{name} values {rows}"

    def _rows(self) -> Iterator[list[str]]:
        size = self._source.choice([0, 1, 3, 8, 8, 30])
        nulls, is_tidy = self._source.choice([0.0, 0.0, 0.2, 0.5]), self._source.random() < 0.6
        wide = self._source.choice([3, 30, 1000])
        for n in range(size):
            row = [
                str(self._source.randrange(wide)),
                str(self._source.randrange(wide)),
                self._source.choice(["'a'", "'A'", "'b'", "'1'", "''", "'a '", f"'x{n}'"]),
                self._source.choice(["'a'", "'A'", "'b'", f"'y{n}'"]),
                f"date '2020-01-{1 + self._source.randrange(28):02}'",
                self._source.choice(["0.0", "-0.0", "1.5", "cast('nan' as double precision)", f"{n}.25"]),
            ]
            row = ["null" if self._source.random() < nulls else value for value in row]
            yield [str(n), *row[1:]] if is_tidy else row

    def _seed(self, name: str) -> str:
        draw = self._source.choice
        rows = [
            f"{n},{draw(['', n, 1])},{draw('ab')},{'aAb'[n % 3]},2020-01-0{n + 1},0.5"
            for n in range(0 if name == "nothing" else 6)
        ]
        return "\n".join([",".join(COLUMNS), *rows, ""])

    # Tests.

    def _properties(self, name: str, readable: list[str]) -> Mapping[str, Any]:
        columns: dict[str, list[Any]] = {}
        tests: list[Any] = []
        for _ in range(self._tests):
            column, test = self._source.choice(_KINDS)(self, readable)
            (columns.setdefault(column, []) if column else tests).append(test)
        return {
            "name": name,
            "data_tests": tests,
            "columns": [{"name": column, "data_tests": found} for column, found in columns.items()],
        }

    def _test(self, kind: str, **arguments: Any) -> Mapping[str, Any]:
        self._names += 1
        test: dict[str, Any] = {"name": f"{kind}_{self._names}", "config": self._config()}
        if arguments:
            test["arguments"] = arguments
        return {kind: test}

    def _config(self) -> dict[str, Any]:
        source = self._source
        settings: dict[str, tuple[float, Callable[[], Any]]] = {
            "where": (0.25, self._condition),
            "limit": (0.15, lambda: source.choice([1, 2, 100])),
            "warn_if": (0.15, lambda: source.choice(["> 1", "!=0", ">= 0", "< 1", "between 1 and 2", "=0"])),
            "error_if": (0.15, lambda: source.choice([">1", "> 10", "< 1", "<>0", "between 0 and 1", ">=3"])),
            "fail_calc": (0.08, lambda: source.choice(["count(*) + 1", "coalesce(max(1), 0)", "COUNT( * )"])),
            "store_failures": (0.12, lambda: source.random() < 0.7),
            "store_failures_as": (0.05, lambda: source.choice(["table", "view", "ephemeral"])),
            "tags": (0.1, lambda: ["nightly"]),
        }
        config = {name: draw() for name, (chance, draw) in settings.items() if source.random() < chance}
        return {**config, "severity": "error" if source.random() < self._strictness else "warn"}

    def _inline_config(self) -> str:
        config = {name: value for name, value in self._config().items() if name != "where"}
        return ", ".join(f"{name}={value!r}" for name, value in config.items())

    def _condition(self) -> str:
        return self._source.choice(_RISKY if self._source.random() < 0.03 else _CONDITIONS)

    def _sample(self, *columns: str) -> str:
        return self._source.choice(columns)

    def _not_null(self, _: list[str]) -> tuple[str, Any]:
        return self._sample(*COLUMNS), self._test("not_null")

    def _unique(self, _: list[str]) -> tuple[str, Any]:
        return self._sample("id", *COLUMNS), self._test("unique")

    def _accepted_values(self, _: list[str]) -> tuple[str, Any]:
        if self._source.random() < 0.5:
            values = ["a", "A", "b", "1", "", "a ", *[f"x{n}" for n in range(30)]]
            chosen = values if self._source.random() < 0.5 else self._source.sample(values, 3)
            return self._sample("s", "c"), self._test("accepted_values", values=chosen)
        values = list(range(self._source.choice([3, 30])))
        return self._sample("id", "k"), self._test("accepted_values", values=values, quote=False)

    def _relationships(self, readable: list[str]) -> tuple[str, Any]:
        arguments = {"to": self._source.choice(readable), "field": self._sample("id", "k")}
        return self._sample("id", "k"), self._test("relationships", **arguments)

    def _expression(self, _: list[str]) -> tuple[str, Any]:
        if self._source.random() < 0.3:
            return self._sample(*_NUMBERS), self._test(
                "expression", expression=self._sample(">= 0", "< 20", "is not null")
            )
        return "", self._test("expression", expression=self._condition())

    def _in_range(self, _: list[str]) -> tuple[str, Any]:
        low, high = self._source.choice([(0, 30), (0, 2), (1, 1000), (-1, 2000)])
        return self._sample(*_NUMBERS), self._test("in_range", low=low, high=high)

    def _combination(self, _: list[str]) -> tuple[str, Any]:
        return "", self._test("combination", columns=self._source.sample(COLUMNS, self._source.choice([1, 2, 3])))

    def _truth(self, _: list[str]) -> tuple[str, Any]:
        condition = self._source.choice([{}, {"row_condition": self._condition()}])
        return "", self._test("truth", expression=self._condition(), **condition)

    def _in_set(self, _: list[str]) -> tuple[str, Any]:
        return "s", self._test("in_set", values=self._source.sample(["a", "b", "A", "1", "x1"], 3))

    def _odd(self, _: list[str]) -> tuple[str, Any]:
        return self._sample(*_NUMBERS), self._test(self._sample("at_least_one", "first_ones"))


_KINDS = (
    _Maker._not_null, _Maker._not_null, _Maker._unique, _Maker._unique, _Maker._accepted_values, _Maker._relationships,
    _Maker._expression, _Maker._in_range, _Maker._combination, _Maker._truth, _Maker._in_set, _Maker._odd,
)  # fmt: skip

"""Random data tests as macros write them.

The four tests of dbt are rendered from dbt's own macros. The others are written here, in the shapes of well-known packages.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import jinja2


def real_macros() -> dict[str, Callable[..., str]]:
    """Return dbt's own generic tests, by name."""
    import dbt.include.global_project

    folder = Path(dbt.include.global_project.__file__).parent / "macros" / "generic_test_sql"
    environment = jinja2.Environment(extensions=["jinja2.ext.do"])
    environment.globals["should_store_failures"] = lambda: False
    names = "not_null", "unique", "accepted_values", "relationships"
    modules = {name: environment.from_string((folder / f"{name}.sql").read_text()).module for name in names}
    return {name: getattr(module, f"default__test_{name}") for name, module in modules.items()}


class RandomMacros:
    """Writes tests for one database."""

    def __init__(self, source: random.Random, adapter: str):
        self._source = source
        self._adapter = adapter
        self._real = real_macros()

    def test(self, relation):
        """Return the name of a shape, and a test of it."""
        shape = self._source.choice(sorted(SHAPES))
        return shape, SHAPES[shape](self, self._model(relation))

    def _model(self, relation):
        """Return what dbt passes to a macro as `model`."""
        if self._source.random() < 0.6:
            return relation
        return f"(select * from {relation} where {self._condition()}) dbt_subquery"

    def _column(self):
        columns = [
            "id", "k", "s", "c", "d", "f", "s || c", "coalesce(s, 'a')", "(id)", "id + k", '"id"',
            "not id > 1", "id > 1 or k > 1", "id = 1 and k = 1", "(id > 1) or (k > 1)", "k is not null",
        ]  # fmt: skip
        return self._source.choice(columns)

    def _condition(self):
        conditions = [
            "id > 1", "k is null", "k is not null", "s in ('a', 'B') -- letters\n", "s <> 'a' or k = 2", "d >= date '2020-01-02'",
            "id is distinct from k", "f > 0.5", "not (id = k)", "s like 'a%'", "c = 'a'", "k <> 0", "1=1 and\n    id >= 0",
            "case when id > 1 then k else 0 end = 0", "length(s) < 3", "s = 'it''s -- not' or id = /* the */ k", "false", "lower(s) = s",
            "extract(year from d) = 2020", "id between 0 and 2",
        ]  # fmt: skip
        return self._source.choice(conditions)

    def _risky(self):
        """Return a condition that fails for some rows, which a `where` may leave out."""
        return self._source.choice(["10 / k > 1", "cast(s as int) > 1", self._condition()])

    # The shapes. Each returns the SQL of one test.

    def _not_null(self, model):
        return self._real["not_null"](model, self._column())

    def _unique(self, model):
        return self._real["unique"](model, self._column())

    def _accepted_values(self, model):
        if self._source.random() < 0.5:
            column = self._source.choice(["s", "c", "lower(s)", "coalesce(c, s)", "cast(id as varchar(9))"])
            return self._real["accepted_values"](model, column, self._source.sample(["a", "A", "b", "1", "x0"], 3))
        column = self._source.choice(["id", "k", "id + k", "f"])
        return self._real["accepted_values"](model, column, self._source.sample(range(5), 4), quote=False)

    def _relationships(self, model):
        column, key = self._source.choice(
            [("id", "id"), ("k", "id"), ("s", "s"), ("c", "c"), ("s", "c"), ("id + k", "id")]
        )
        return self._real["relationships"](model, column, "p", key)

    def _self_reference(self, model):
        return self._real["relationships"](model, "k", "t", "id")

    def _expression(self, model):
        chosen = self._source.choice(["1", "*", "id, k", "id as one, s"])
        return f"\nselect\n    {chosen}\nfrom {model}\n\nwhere not({self._risky()})\n"

    def _singular(self, model):
        end = self._source.choice(["", " -- why", "\n"])
        return f"-- negative amounts\nselect {self._source.choice(['*', 'id', 'k as id, s'])} from {model}\nwhere {self._condition()}{end}"

    def _range(self, model):
        column, low, high = self._source.choice([("id", 0, 2), ("k", 1, 9), ("f", 0, 1)])
        return f"""
with passing as(
  select *
  from {model}
),

failing as (
  select *
  from passing
  where
    -- it's never true
    1 = 2
    -- not smaller
    or not {column} >= {low}
    or not {column} <= {high}
)

select *
from failing
"""

    def _truth(self, model):
        condition = self._source.choice(["", f"\n    where\n        {self._condition()}\n    "])
        verdict = self._source.choice(["= true", "= false", "is true" if self._adapter == "postgres" else "= true"])
        return f"""
with expressions as (
    select
        {self._condition()} as truth
    from {model}{condition}
),
failing as (

    select
        *
    from
        expressions
    where
        not(truth {verdict})

)

select *
from failing
"""

    def _combination(self, model):
        columns = ", ".join(self._source.sample(["id", "k", "s", "c", "d", "f"], self._source.choice([1, 2, 3])))
        return f"""
with failing as (

    select
        {columns}
    from {model}
    group by {columns}
    having count(*) > 1

)

select *
from failing
"""

    def _compound(self, model):
        columns = self._source.sample(["id", "k", "s", "c"], self._source.choice([1, 2]))
        missing = self._source.choice([" or ", " and "]).join(f"{column} is null" for column in columns)
        return f"""
with failing as (

    select
        {",".join(columns)},
        count(*) as "n_records"
    from {model}
    where
        1=1
        and {self._condition()} and not (
        {missing}
    )
    group by
        {",".join(columns)}
    having count(*) > 1

)
select * from failing
"""

    def _unique_of_target(self, model):
        column = self._column()
        return f"""
with target as (

  select {column} as unique_field
  from {model}
  where {column} is not null

)

select
    unique_field,
    count(*) as n_records

from target
group by unique_field
having count(*) > 1
"""

    def _rejected_values(self, model):
        return f"""
with all_values as (

    select distinct
        {self._source.choice(["s", "c"])} as value_field

    from {model}

),

failing as (

    select
        value_field

    from all_values
    where value_field in (
        'b','x1'
        )

)

select *
from failing
"""

    def _relationships_where(self, model):
        return f"""
with left_table as (

  select
    k as id

  from {model}

  where k is not null
    and {self._condition()}

),

right_table as (

  select
    id as id

  from p

  where id is not null
    and id < 20

),

exceptions as (

  select
    left_table.id,
    right_table.id as right_id

  from left_table

  left join right_table
         on left_table.id = right_table.id

  where right_table.id is null

)

select * from exceptions
"""

    def _set_of_values(self, model):
        column, values = self._source.choice(
            [("s", "'a'|'b'|'x1'"), ("c", "'A'|'b'"), ("id", "0|1|2.0"), ("f", "0|1.5")]
        )
        rows = "\n    union all\n".join(f"    select\n        {value} as value_field" for value in values.split("|"))
        return f"""
with all_values as (

    select
        {column} as value_field

    from {model}

    where {self._condition()}

),
set_values as (

{rows}

),
failing as (
    -- not in the set
    select
        v.value_field
    from
        all_values v
        left join
        set_values s on v.value_field = s.value_field
    where
        s.value_field is null

)

select *
from failing
"""

    def _empty_string(self, model):
        return f"""
    with

    all_values as (

        select

            trim(s) as s

        from {model}

    ),

    errors as (

        select * from all_values
        where s = ''

    )

    select * from errors
"""

    def _grouped(self, model):
        return f"select s, d, count(*) from {model} where {self._condition()} group by s, d"

    def _collapsed(self, model):
        """Return a test whose rows are not those of the relation, so that it may not be merged."""
        return f"""
with found as (select distinct {self._source.choice(["s", "k", "s, k"])} from {model}),
failing as (select {{0}}, count(*) from found group by {{0}} having count(*) > 1)
select * from failing
""".replace("{0}", self._source.choice(["s", "k"]))

    def _odd(self, model):
        """Return a test that may not be merged, or only with care."""
        alias = "" if model.startswith("(") else "o"
        return self._source.choice([
            f"select id from {model} {alias} where {alias or 'dbt_subquery'}.id is null",
            f"select count(id) from {model} having count(id) = 0",
            f"select count(id) as n from {model} where id is null",
            f"select sum(id) > 3 as truth from {model} having sum(id) > 3",
            f"select id from {model} where id > 0 limit 0",
            f"select id from {model} where id in (select id from p)",
            f"select nothing from {model} where id is null",
            f"select id, nothing as x from {model} where id > 5",
            f"with a as (select id, nothing as x from {model}) select id from a where id > 5",
            f"with a as (select count(*) as id from {model}) select * from a where id = 0",
            f"with a as (select id as x from {model}) select x from a where k is null",
            f"with k as (select * from {model}) select * from k where k is null",
            'with k as (select id from p where id > 1 limit 0) select id from "k" where id is null',
            f"with a as (select * from {model}) select id from a where rowid > 100",
            f"select s as c, id from {model} where c = 'a'",
            f"select s from {model} group by s having count(*) > 2",
            f"select k as s, count(*) from {model} group by s having count(*) > 1",
            f"select max(id) over () from {model} where id > 2",
            f"select id from {model} where id > 1 union all select id from p where id is null",
            f"select a.id from {model} {alias or 'a'}, p where a.id = p.id",
            f"select row_number() over (order by id) as n from {model} where id > 1 and k is null",
            f"select 1 from {model} where id is null order by 1",
        ])  # fmt: skip


SHAPES: dict[str, Callable[[RandomMacros, str], str]] = {
    name[1:]: getattr(RandomMacros, name)
    for name in (
        "_not_null", "_unique", "_accepted_values", "_relationships", "_self_reference", "_expression", "_singular", "_range",
        "_truth", "_combination", "_compound", "_unique_of_target", "_rejected_values", "_relationships_where", "_empty_string",
        "_set_of_values",
        "_collapsed",
        "_grouped", "_odd",
    )
}  # fmt: skip

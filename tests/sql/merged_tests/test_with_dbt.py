"""The tests that a real dbt compiles and runs are merged, and the merged query agrees with dbt's own results."""

from __future__ import annotations

import duckdb
import pytest

from dagster_sao.sql import merged_tests
from tests.histories.inprocess_dbt import run_dbt

FILES = {
    "dbt_project.yml": "{name: shop, profile: shop, flags: {send_anonymous_usage_stats: false}}",
    "profiles.yml": "shop: {target: it, outputs: {it: {type: duckdb, path: 'FOLDER/shop.duckdb'}}}",
    "models/customers.sql": "select * from (values (1), (2)) as t (id)",
    "models/orders.sql": """
select * from (values (1, 1, 'open', 5), (2, 1, 'Open', -1), (2, 3, 'done', null), (null, null, null, 7))
as t (id, customer, status, amount)
""",
    "models/schema.yml": """
models:
  - name: customers
    columns: [{name: id, tests: [unique, not_null]}]
  - name: orders
    tests:
      - positive: {expression: amount >= 0}
      - positive: {name: fifth, expression: amount >= 0, config: {where: "id = 1", severity: warn}}
    columns:
      - name: id
        tests:
          - unique
          - not_null
          - unique: {config: {where: "status = 'open'"}, name: first}
          - not_null: {config: {where: "status = 'open'"}, name: second}
      - name: customer
        tests:
          - relationships: {to: ref('customers'), field: id}
          - relationships: {to: ref('customers'), field: id, config: {where: id = 1}, name: third}
      - name: status
        tests:
          - accepted_values: {values: [open, done]}
          - accepted_values: {values: [open, Open, done], name: fourth}
      - name: amount
        tests: [accepted_values: {values: [5, -1, 7], quote: false}]
""",
    "tests/big.sql": "select id, amount from {{ ref('orders') }} -- big\nwhere amount > 10",
    "macros/positive.sql": """
{% test positive(model, expression) %}
select 1
from {{ model }}
where not({{ expression }})
{% endtest %}
""",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The folder of a project, and the results of its tests."""
    folder = tmp_path_factory.mktemp("shop")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text.replace("FOLDER", str(folder)))
    result = run_dbt(["build"], folder, folder / "target").result
    return folder, [found for found in result.results if found.node.resource_type == "test"]


def test_merged_queries_agree_with_dbt(shop):
    folder, results = shop
    queries = [merged_tests.TestQuery(found.node.unique_id, found.node.compiled_code) for found in results]
    failures = {found.node.unique_id: found.failures for found in results}
    merged = merged_tests.merge(queries, "duckdb")
    with duckdb.connect(folder / "shop.duckdb") as connection:
        found = [dict(zip(query.keys, connection.execute(query.sql).fetchone(), strict=True)) for query in merged]
    assert [len(columns) for columns in found] == [2, 12]
    assert {key for columns in found for key in columns} == failures.keys()
    for columns in found:
        assert {key: value == 0 for key, value in columns.items()} == {key: failures[key] == 0 for key in columns}
    assert 0 < sum(count == 0 for count in failures.values()) < len(failures)

"""What a process that imported `warm_up` hands on to dbt: an upgrade of dbt that works in another way fails here first."""

from __future__ import annotations

import json
import subprocess
import sys

_PROJECT = {
    "dbt_project.yml": "name: small\nprofile: small\n",
    "profiles.yml": "small: {target: dev, outputs: {dev: {type: duckdb, path: small.duckdb}}}\n",
    "models/orders.sql": "select 1 as order_id",
    "models/orders.yml": "models: [{name: orders, columns: [{name: order_id, data_tests: [unique]}]}]\n",
}
_COUNT = """
import json, psutil, sys, threading
from importlib import import_module
import dbt.cli.main, dbt.adapters.duckdb, dbt_common.dataclass_schema as dbt_classes
from mashumaro.core.meta.code.builder import CodeBuilder

for name in sys.argv[1:]:
    import_module(name)
assert threading.active_count() == 1 and not psutil.Process().children(), "what a fork would lose, or share"
worked_out = []

def noting(function, kind, of):
    def note(argument):
        worked_out.append(f"{kind} of {of(argument)}")
        return function(argument)
    return note

dbt_classes.build_json_schema = noting(dbt_classes.build_json_schema, "schema", lambda cls: cls.__name__)
CodeBuilder.compile = noting(CodeBuilder.compile, "methods", lambda builder: builder.cls.__name__)
assert dbt.cli.main.dbtRunner().invoke(["--quiet", "build"]).success
print(json.dumps(worked_out))
"""


def test_dbt_works_out_next_to_nothing_after_a_warm_up(tmp_path):
    for name, text in _PROJECT.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    def worked_out(*imported: str) -> list[str]:
        command = [sys.executable, "-c", _COUNT, *imported]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    worked_out()  # leaves what dbt parsed, for a build that reads it
    cold, warm = worked_out(), worked_out("dagster_sao.warehouse.dbt_private.warm_up")
    assert {"schema of Project", "schema of DuckDBCredentials", "methods of ModelNode"} <= set(cold)
    assert len(warm) * 10 < len(cold), warm
    assert not {name for name in warm if name.startswith("schema")} - {"schema of TestResultData"}

"""A run reads what dbt records while dbt goes on writing."""

from __future__ import annotations

from dagster_sao.orchestration.dbt.process import DbtProcess
from dagster_sao.orchestration.dbt.traces import TraceFile
from dbt_dagster_sao.trace import Trace
from tests.histories.lab import TABLE, lab


def test_a_line_is_read_once_it_is_complete(tmp_path):
    path = tmp_path / "traces.jsonl"
    traces = TraceFile(path)
    assert not traces.exists()
    assert traces.get("model.a") is None
    first, second = (Trace(f"model.{name}", frozenset({"var"}), {"var: x": name}) for name in "ab")
    line = second.to_json()
    path.write_text(f"{first.to_json()}\n{line[:20]}")
    assert traces.exists()
    assert (traces.get("model.a"), traces.get("model.b")) == (first, None)
    with path.open("a") as file:
        file.write(f"{line[20:]}\nnot a trace\n")
    assert (traces.get("model.b"), traces.get("model.a")) == (second, first)


def test_a_file_that_was_taken_is_gone_and_still_known(tmp_path):
    path = tmp_path / "traces.jsonl"
    traces, trace = TraceFile(path), Trace("model.a", frozenset({"var"}), {"var: x": "1"})
    traces.take()
    assert not traces.exists()
    path.write_text(f"{trace.to_json()}\n")
    traces.take()
    assert not path.exists()
    assert (traces.exists(), traces.get("model.a")) == (True, trace)


def test_a_run_knows_what_a_node_read_when_dbt_logs_its_end(tmp_path, monkeypatch):
    found = {}
    events = DbtProcess.events

    def look(process):
        for event in events(process):
            node = event.raw["data"].get("node_info") or {}
            if event.raw["info"]["name"] in {"LogModelResult", "LogTestResult"}:
                found[node["node_name"]] = process.trace(node["unique_id"])
            yield event

    monkeypatch.setattr(DbtProcess, "events", look)
    files = {
        "models/m.sql": TABLE + "select {{ var('x', 1) }} as id",
        "tests/t.sql": "select * from {{ ref('m') }} where id > {{ var('y', 1) }}",
    }
    with lab(tmp_path, files, []) as case:
        case.settle()
    assert {name: set(trace.reads) for name, trace in found.items()} == {"m": {"var: x"}, "t": {"var: y"}}

"""The order in which dbt starts what is ready: its own, or the longest path first."""

from __future__ import annotations

from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import networkx as nx
import pytest
from dbt.graph.queue import GraphQueue
from dbt.task.runnable import GraphRunnableTask

from dbt_dagster_sao.private_points import points, queue
from dbt_dagster_sao.recorder import Session, current

# Two leaves; a chain of three; and a model that is tested before another one reads it.
EDGES = [("z1", "z2"), ("z2", "z3"), ("m", "test"), ("test", "n"), ("m", "n")]
LEAVES = ["a1", "a2"]
MANIFEST = SimpleNamespace(expect=lambda uid: SimpleNamespace(unique_id=uid))


@pytest.fixture
def order(monkeypatch, tmp_path):
    """Return the order in which one thread of dbt works off the graph, with these durations."""

    def run(seconds):
        session = Session(tmp_path / "traces", b"", {}, frozenset(), seconds=seconds)
        monkeypatch.setattr(current, "session", session)
        graph = nx.DiGraph(EDGES)
        graph.add_nodes_from(LEAVES)
        todo, found = GraphQueue(graph, MANIFEST, set(graph)), []
        while not todo.empty():
            found.append(todo.get().unique_id)
            todo.mark_done(found[-1])
        return found

    return run


@pytest.fixture(autouse=True)
def wrapped(monkeypatch):
    for name in ("_get_scores", "get"):
        monkeypatch.setattr(GraphQueue, name, vars(GraphQueue)[name])  # put back afterwards
    monkeypatch.setattr(GraphRunnableTask, "run_queue", GraphRunnableTask.run_queue)
    points._wrap(points.QUEUE_POINTS)


def test_without_durations_dbt_goes_by_depth(order):
    assert order({}) == ["a1", "a2", "m", "z1", "test", "z2", "n", "z3"]


def test_the_longest_path_is_begun_first(order):
    equal = dict.fromkeys(["z1", "z2", "z3", "m", "n", *LEAVES], 1.0)
    assert order(equal) == ["z1", "m", "z2", "a1", "a2", "test", "n", "z3"]
    assert order({**equal, "n": 5.0}) == ["m", "test", "n", "z1", "z2", "a1", "a2", "z3"]
    assert order({**equal, "a2": 9.0})[0] == "a2"


def test_dbt_keeps_its_order_where_paths_cannot_be_found(order, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(queue, "_longest_paths", fail)
    assert order({"z1": 9.0})[0] == "a1"


def test_what_becomes_ready_on_the_longest_path_overtakes_what_waits_for_a_thread(monkeypatch, tmp_path):
    session = Session(tmp_path / "traces", b"", {}, frozenset(), seconds={"z1": 1.0, "z2": 5.0, "a1": 1.0})
    monkeypatch.setattr(current, "session", session)
    graph = nx.DiGraph([("z1", "z2")])
    graph.add_node("a1")
    todo, found = GraphQueue(graph, MANIFEST, set(graph)), []

    def work(self, pool):
        while not todo.empty():
            uid = todo.get().unique_id
            pool.apply_async(found.append, [uid], callback=lambda _, uid=uid: todo.mark_done(uid))
        todo.join()

    with ThreadPool(1) as pool:
        queue.run_queue(work)(SimpleNamespace(config=SimpleNamespace(threads=1)), pool)
    assert found == ["z1", "z2", "a1"]

"""Properties of every plan, over random projects, pasts and moments."""

from __future__ import annotations

import copy
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dagster_sao.core.code.evidence import Evidence
from dagster_sao.core.code.versions import digest
from dagster_sao.core.decision.decide import Action, Request
from dagster_sao.core.decision.plan import Mode
from dagster_sao.core.decision.plan_tests import TestScope
from dagster_sao.core.manifest.graph import NodeKind, ProjectTest
from dagster_sao.core.manifest.policy import CodeChanges, Policy, UpdatesOn
from dagster_sao.core.state.relation_versions import version_in_relation
from dagster_sao.core.state.state import VerdictStatus
from tests.core.graphs import World, _node, _source, graph, project_graph

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LONG = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
STORED = ["table", "table", "incremental", "snapshot", "python"]
ALL_WINDOWS = timedelta(days=3)

durations = st.sampled_from([None, None, timedelta(minutes=10), timedelta(hours=1), timedelta(days=1)])
policies = st.builds(
    Policy,
    build_after=durations,
    updates_on=st.sampled_from(UpdatesOn),
    lag_tolerance=durations,
    code_changes=st.sampled_from(CodeChanges),
)


@st.composite
def graphs(draw):
    sources = [f"src.s{i}" for i in range(draw(st.integers(1, 3)))]
    names = [f"n{i}" for i in range(draw(st.integers(1, 8)))]
    nodes = {}
    for index, name in enumerate(names):
        kind = draw(st.sampled_from([*STORED, "view", "view", "seed"]))
        above = [] if kind == "seed" else [*sources, *names[:index]]
        parents = draw(st.lists(st.sampled_from(above), max_size=3, unique=True)) if above else []
        nodes[name] = _node(name, kind, tuple(parents))
    adapter = draw(st.sampled_from(["duckdb", "postgres"]))
    return project_graph(adapter, nodes, {name: _source(name) for name in sources}, draw(drawn_tests(sources, nodes)))


@st.composite
def drawn_tests(draw, sources, nodes):
    """Data tests of one or two things, of either severity, and unit tests of models."""
    found = []
    for index in range(draw(st.integers(0, 4))):
        uid = f"test{index}"
        if draw(st.integers(0, 4)):
            reads = draw(st.lists(st.sampled_from([*sources, *nodes]), min_size=1, max_size=2, unique=True))
            is_error = draw(st.sampled_from([True, True, False]))
            found.append(ProjectTest(uid, uid, ("shop", uid), "s.yml", reads=tuple(reads), is_error=is_error))
        else:
            found.append(ProjectTest(uid, uid, ("shop", uid), "s.yml", model=draw(st.sampled_from(list(nodes)))))
    return found


@st.composite
def worlds(draw, *, waiting=True, past=True, failures=True, updates_on_all=True):
    """A project with a random past."""
    world = World(draw(graphs()))
    world.stars = draw(st.sets(st.sampled_from(list(world.graph.nodes))))
    if waiting:
        world.policies = {node: draw(policies) for node in world.graph.nodes if draw(st.booleans())}
    if not updates_on_all:
        for node in world.policies:
            world.ask(node, updates_on=UpdatesOn.ANY)
    if past:
        for _ in range(draw(st.integers(0, 6))):
            draw_event(draw, world, failures=failures)
    return world


def draw_event(draw, world, *, failures=True):
    nodes, sources = list(world.graph.nodes), list(world.graph.sources)
    event = draw(
        st.sampled_from(
            [
                "load",
                "load",
                "edit",
                "drop",
                "build",
                "build",
                "some",
                "wait",
                "fail",
                "restore",
                "break",
                "break",
                "mend",
            ]
        )
    )
    if event == "load":
        world.load(draw(st.sampled_from(sources)))
    elif event == "restore":
        world.load(draw(st.sampled_from(sources)), "first")
    elif event == "edit":
        world.edit(draw(st.sampled_from([*nodes, *world.graph.tests])))
    elif event == "drop":
        world.missing |= {draw(st.sampled_from(nodes))} & set(world.builds)
    elif event == "wait":
        world.now += draw(st.sampled_from([timedelta(minutes=1), timedelta(minutes=30), timedelta(hours=3)]))
    elif event == "some":
        some = draw(st.sets(st.sampled_from(nodes), min_size=1))
        world.build(selection=some, requests=dict.fromkeys(some, Request.BUILD))
    elif event == "fail" and failures:
        world.apply(world.plan(), failing=draw(st.sets(st.sampled_from(nodes))))
    elif event == "break" and failures:
        if world.graph.tests:
            broken = [VerdictStatus.FAIL, VerdictStatus.ERROR]
            world.answers[draw(st.sampled_from(list(world.graph.tests)))] = draw(st.sampled_from(broken))
    elif event == "mend":
        world.answers.clear()
    else:
        world.build(mode=draw(st.sampled_from(Mode)))


def settle(world):
    """Let all windows and waits elapse, and build until nothing is left, with every test passing."""
    world.answers.clear()
    let_windows_elapse(world)


def let_windows_elapse(world):
    """Build at the end of the window of each node: it may begin with the build of the node above it."""
    for _ in range(2 + len(world.graph.nodes)):
        world.now += ALL_WINDOWS
        world.build()


# Deciding is a fixed point


@QUICK
@given(worlds())
def test_what_a_plan_builds_is_not_built_again(world):
    world.build()
    assert (world.plan().builds, world.plan().test_runs) == ([], [])


@pytest.mark.slow
@LONG
@given(worlds())
def test_what_a_plan_builds_is_not_built_again_in_many_worlds(world):
    world.build()
    assert (world.plan().builds, world.plan().test_runs) == ([], [])


@QUICK
@given(worlds(), st.integers(0, 10**6))
def test_a_world_that_does_not_change_is_never_built(world, seconds):
    settle(world)
    world.now += timedelta(seconds=seconds)
    assert (world.plan().builds, world.plan().test_runs) == ([], [])


@QUICK
@given(worlds(), st.sampled_from(Mode))
def test_deciding_twice_decides_the_same(world, mode):
    assert world.plan(mode=mode).decisions == world.plan(mode=mode).decisions


# What a change leads to


@QUICK
@given(worlds(), st.data())
def test_a_changed_source_leads_to_builds_below_it_only(world, data):
    settle(world)
    source = data.draw(st.sampled_from(list(world.graph.sources)))
    world.load(source)
    world.now += data.draw(st.sampled_from([timedelta(0), timedelta(hours=2), ALL_WINDOWS]))
    assert set(world.plan().builds) <= world.graph.descendants([source])


@QUICK
@given(worlds(waiting=False), st.data())
def test_a_changed_source_leads_to_every_stored_node_below_it_that_does_not_wait(world, data):
    settle(world)
    source = data.draw(st.sampled_from(list(world.graph.sources)))
    world.load(source)
    stored = {n for n in world.graph.descendants([source]) if not world.graph.nodes[n].is_view}
    built = set(world.plan().builds)
    assert stored <= built
    if world.graph.adapter_type == "duckdb":
        assert built == stored


@QUICK
@given(worlds(), st.data())
def test_a_decision_depends_on_what_is_above_it_only(world, data):
    node = data.draw(st.sampled_from(list(world.graph.nodes)))
    before = world.plan().decisions[node]
    others = sorted(set(world.graph.nodes) - world.graph.ancestors([node]) - {node})
    sources = sorted(set(world.graph.sources) - world.graph.ancestors([node]))
    assume(others or sources)
    for other in others:
        world.edit(other)
        world.policies[other] = data.draw(policies)
        if data.draw(st.booleans()):
            world.builds.pop(other, None)
    for source in sources:
        world.load(source)
    assert world.plan().decisions[node] == before


@QUICK
@given(worlds(), st.data())
def test_a_node_is_not_built_for_data_within_its_window(world, data):
    settle(world)
    started = {n: b.started_at for n, b in world.builds.items()}
    for source in world.graph.sources:
        world.load(source)
    world.now += data.draw(st.sampled_from([timedelta(0), timedelta(minutes=9), timedelta(hours=2)]))
    for node in world.plan().builds:
        window = world.project.policy(node).build_after
        is_view = world.graph.nodes[node].is_view
        assert is_view or window is None or world.now >= started[node] + window


# Order and versions


@QUICK
@given(worlds())
def test_waves_hold_every_built_node_after_all_that_is_built_above_it(world):
    plan = world.plan()
    wave_of = {node: index for index, wave in enumerate(plan.waves) for node in wave}
    assert sorted(wave_of) == sorted(plan.builds)
    for node in plan.builds:
        above = world.graph.ancestors([node]) & set(plan.builds)
        assert all(wave_of[parent] < wave_of[node] for parent in above)


@QUICK
@given(worlds(failures=False))
def test_a_run_records_the_versions_that_the_plan_foresaw(world):
    """For all but what is new each time, or whose SQL nobody has seen run, and what is below one that is built."""
    plan = world.plan()
    nodes, seen = world.graph.nodes, {n for n in world.builds if not world.project.code_changes(n, world.builds[n])}
    new_builds = {n for n in plan.builds if nodes[n].kind is NodeKind.HISTORY_DEPENDENT or n not in seen}
    unforeseen = new_builds | world.graph.descendants(new_builds)
    world.apply(plan)
    after = world.plan().versions
    for name, version in plan.versions.items():
        if name not in unforeseen:
            assert after[name] == version, name


@QUICK
@given(worlds())
def test_what_is_below_a_failure_is_never_built(world):
    """But for a view that is lost."""
    plan = world.plan()
    for node in plan.builds:
        above = [plan.decisions[p].action for p in world.graph.nodes[node].parents if p in plan.decisions]
        assert plan.decisions[node].is_restored or not {Action.HOLD, Action.SKIP} & set(above)


@QUICK
@given(worlds(), st.data())
def test_a_selection_decides_nothing_else_and_keeps_other_versions(world, data):
    selection = data.draw(st.sets(st.sampled_from(list(world.graph.nodes))))
    plan = world.plan(selection=selection)
    assert set(plan.decisions) == selection
    for name, build in world.builds.items():
        if name not in selection and not world.graph.nodes[name].is_view:
            # A failed attempt after the build gives the relation a version of its own.
            assert plan.versions[name] == version_in_relation(name, build.data_version, world.state)


# What tests hold


@QUICK
@given(worlds())
def test_nothing_is_built_on_what_a_test_of_error_severity_did_not_pass(world):
    """Each test that gates what a plan builds has, or gets before it, a verdict on just the versions that are read."""
    plan = world.plan()
    built = world.apply(plan)
    versions = world.plan().versions
    for node in (node for node in built if not plan.decisions[node].is_restored):
        for test in world.graph.tests.values():
            if test.is_error and world.graph.gates.gates(test.unique_id, node):
                verdict = world.verdicts[test.unique_id]
                assert not verdict.is_failing
                known = {read: versions[read] for read in test.reads if read in versions}
                random = {r for r in known if r in world.graph.nodes and world.graph.nodes[r].is_view}
                assert {r: v for r, v in verdict.versions.items() if r not in random} == {
                    r: v for r, v in known.items() if r not in random
                }


@QUICK
@given(worlds())
def test_a_plan_has_each_test_after_what_it_reads_and_before_what_it_gates(world):
    plan = world.plan()
    order = plan.in_order(plan.builds, plan.test_runs)
    place = {uid: index for index, uid in enumerate(order)}
    assert sorted(order) == sorted([*plan.builds, *plan.test_runs])
    for uid in plan.test_runs:
        test = world.graph.tests[uid]
        assert all(place[read] < place[uid] for read in test.reads if read in place)
        assert all(place[uid] < place[node] for node in world.graph.gates.gated_by(uid) if node in place)


@QUICK
@given(graphs())
def test_a_test_gates_what_is_below_all_that_it_reads(graph):
    for test in graph.tests.values():
        below = [{test.model} | graph.descendants([test.model])] if test.model else []
        below += [graph.descendants([read]) for read in test.reads]
        assert set(graph.gates.gated_by(test.unique_id)) == set.intersection(*below)


# No missed update


class Contents:
    """What the relations hold: of a view its definition, of a stored node what it read when it was built."""

    def __init__(self):
        self.held = {}

    def content(self, world, name):
        if name in world.tokens:
            return world.tokens[name].token, world.columns.get(name)
        if name not in self.held:
            return None
        if world.graph.nodes[name].is_view:
            return (self.held[name], tuple(self.content(world, p) for p in world.graph.nodes[name].parents))
        return self.held[name]

    def built(self, world, node):
        code, is_view = world.fingerprints[node].digest, world.graph.nodes[node].is_view
        parents = world.graph.nodes[node].parents
        columns = digest([world.columns.get(parent) for parent in parents]) if world.binds_views else ""
        self.held[node] = (code, columns) if is_view else (code, tuple(self.content(world, p) for p in parents))
        world.columns[node] = digest([code, columns, world.surprises.get(node)])

    def answer(self, world, test):
        """Return what follows from the rows and the code, as good as random; a third of all fails."""
        code = world.project.fingerprints[test.unique_id].digest
        found = digest([code, [self.content(world, read) for read in test.reads]])
        return VerdictStatus.FAIL if int(found, 16) % 3 == 0 else VerdictStatus.PASS

    def possible(self, world, selection):
        """Return what of `selection` can be built: nothing reads a relation that does not exist."""
        there = {*world.tokens, *self.held}
        found = set()
        for name, node in world.graph.nodes.items():
            if name in selection and set(node.parents) <= there | found:
                found.add(name)
        return found


def everything_built(world):
    """Return what a first build of everything makes, with its verdicts."""
    fresh = copy.deepcopy(world)
    fresh.builds, fresh.failures, fresh.verdicts, fresh.warehouse = {}, {}, {}, type(world.warehouse)()
    fresh.columns = {name: columns for name, columns in world.columns.items() if name in world.tokens}
    fresh.build()
    return {name: fresh.warehouse.content(fresh, name) for name in fresh.graph.nodes}, fresh.verdicts


def check_no_missed_update(world, data):
    world.warehouse = contents = Contents()
    nodes = list(world.graph.nodes)
    for _ in range(data.draw(st.integers(1, 6))):
        event = data.draw(
            st.sampled_from(["load", "restore", "edit", "wait", "some", "job", "all", "columns", "surprise"])
        )
        if event in {"load", "restore"}:
            source = data.draw(st.sampled_from(list(world.graph.sources)))
            world.load(source, "first" if event == "restore" else None)
        elif event == "edit":
            world.edit(data.draw(st.sampled_from([*nodes, *world.graph.tests])))
        elif event == "wait":
            world.now += data.draw(st.sampled_from([timedelta(minutes=1), timedelta(hours=2)]))
        elif event == "columns":
            world.columns[data.draw(st.sampled_from(list(world.graph.sources)))] = data.draw(st.sampled_from("ab"))
        elif event == "surprise":
            # Its columns follow from something that nobody can tell beforehand, so it is no function of what it reads, and it
            # is built by hand at once.
            node = data.draw(st.sampled_from([n for n in nodes if not world.graph.nodes[n].is_view] or nodes))
            if contents.possible(world, {node}) and not world.graph.nodes[node].is_view:
                world.surprises[node] = data.draw(st.sampled_from("ab"))
                world.evidence[node] = Evidence()
                asked = {node: Request.BUILD}
                looks = data.draw(st.booleans())
                world.build(selection=[node], requests=asked, tests=TestScope(with_gates=False), look=looks)
        elif event in {"some", "job"}:
            some = contents.possible(world, data.draw(st.sets(st.sampled_from(nodes))))
            asked = dict.fromkeys(some, Request.BUILD) if event == "some" else {}
            looks = event == "job" or data.draw(st.booleans())
            world.build(selection=some, requests=asked, tests=TestScope(with_gates=event == "job"), look=looks)
        else:
            world.build()
    let_windows_elapse(world)
    expected, verdicts = everything_built(world)
    held = {uid for test, verdict in verdicts.items() if verdict.is_failing for uid in world.graph.gates.gated_by(test)}
    plan = world.plan()
    assert {uid for uid, d in plan.decisions.items() if d.action in {Action.HOLD, Action.SKIP}} == held
    for uid, verdict in verdicts.items():
        assert world.verdicts[uid].status is verdict.status, uid
    for name in nodes:
        if name not in held:
            assert contents.content(world, name) == expected[name], name


@QUICK
@given(worlds(past=False, updates_on_all=False), st.data())
def test_when_all_is_quiet_every_relation_holds_what_a_full_build_would_produce(world, data):
    check_no_missed_update(world, data)


@pytest.mark.slow
@LONG
@given(worlds(past=False, updates_on_all=False), st.data())
def test_when_all_is_quiet_every_relation_of_many_worlds_holds_it(world, data):
    check_no_missed_update(world, data)


def test_the_oracle_sees_a_missed_update():
    """The property above bites: a table that was not rebuilt differs from a full build."""
    world = World(graph("src.raw >> view:clean >> orders"), warehouse=Contents())
    world.build()
    world.load("src.raw")
    assert world.warehouse.content(world, "orders") != everything_built(world)[0]["orders"]

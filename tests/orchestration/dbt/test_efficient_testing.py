"""What a run requests about data tests: which may be spared a query, and which verdicts proofs may rely on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import dagster as dg
import pytest

from dagster_sao.core.code.evidence import Evidence
from dagster_sao.core.decision.decide import Request
from dagster_sao.core.decision.decide_tests import TestAction, TestDecision, TestReason
from dagster_sao.core.decision.run_ledger import Ledger
from dagster_sao.core.manifest.policy import EfficientTesting, TestPolicy
from dagster_sao.core.state.state import VerdictStatus
from dagster_sao.orchestration.dbt.efficient_testing import TestSettings, data_test_request, label_in_proofs
from dagster_sao.orchestration.dbt.process import TestAnswer
from dagster_sao.orchestration.runs.outcomes import Outcomes
from dagster_sao.orchestration.runs.recorder import Recorder
from dagster_sao.orchestration.runs.report import RunReport, TestOutcome
from dagster_sao.orchestration.runs.run_plan import RunPlan
from dagster_sao.orchestration.state import contradictions
from dbt_dagster_sao.data_tests.handover import AnsweredTest, How
from tests.core.graphs import World, graph

OFF, REUSE, AGGREGATE, ALL = EfficientTesting
PASS, WARN, FAIL, ERROR = (VerdictStatus(status) for status in ("pass", "warn", "fail", "error"))
ARROWS = """
raw.orders >> stg >> orders >> below
raw.orders >> view:seen >> orders
raw.orders >> orders
raw.loose >> view:loose >> view:looser >> orders
view:loose >> orders
raw.loose >> orders
"""
UPSTREAM = {
    "of_stg": ("stg",),
    "of_seen": ("seen",),
    "of_source": ("raw.orders",),
    "of_loose": ("loose",),
    "of_looser": ("looser",),
    "of_loose_source": ("raw.loose",),
    "of_both": ("stg", "raw.loose"),
}
SOUND = {"of_stg", "of_seen", "of_source"}


@pytest.fixture
def world():
    """A project of which everything was built and tested once; nothing tracks `raw.loose`."""
    world = World(graph(ARROWS))
    world.load("raw.loose", "untracked 1772366400")
    for name, reads in UPSTREAM.items():
        world.add_test(name, *reads)
    world.add_test("clock", "stg", is_volatile=True)
    world.add_test("unit", "orders", unit=True)
    world.add_test("of_orders", "orders")
    world.add_test("of_below", "below")
    world.build()
    world.now += timedelta(minutes=30)
    return world


def request(world, settings=TestSettings(ALL), nodes=("orders",), tests=("of_orders",), verdicts=None, **options):  # noqa: B008 (frozen)
    project = options.get("project", world.project)
    ledger = options.get("ledger") or Ledger(project, world.state)
    return data_test_request(settings, project, world.state, nodes, tests, verdicts or {}, ledger.stands, world.now)


@pytest.mark.parametrize(
    ("setting", "of_test", "allowed", "merges", "proves"),
    [
        (OFF, None, ALL, False, False),
        (REUSE, None, ALL, False, True),
        (AGGREGATE, None, ALL, True, False),
        (ALL, None, ALL, True, True),
        # A test's own setting comes first.
        (ALL, OFF, ALL, False, False),
        (OFF, ALL, ALL, True, True),
        (AGGREGATE, REUSE, ALL, False, True),
        (REUSE, AGGREGATE, ALL, True, False),
        # What a run may not do, no setting makes it do.
        (ALL, ALL, OFF, False, False),
        (ALL, ALL, AGGREGATE, True, False),
        (REUSE, REUSE, AGGREGATE, False, False),
        (OFF, ALL, AGGREGATE, True, False),
    ],
)
def test_the_test_then_the_run_tell_how_a_test_is_answered(world, setting, of_test, allowed, merges, proves):
    project = replace(world.project, test_policies={"of_orders": TestPolicy(efficient_testing=of_test)})
    found = request(world, TestSettings(setting).limited_to(allowed), project=project)
    if not (merges or proves):
        assert found is None
        return
    assert ("of_orders" in found.mergeable, "of_orders" in found.provable) == (merges, proves)


def test_each_test_is_asked_for_itself(world):
    project = replace(world.project, test_policies={"of_stg": TestPolicy(efficient_testing=OFF)})
    found = request(world, tests=("of_orders", "of_stg", "of_seen"), project=project)
    assert found.mergeable == found.provable == {"of_orders", "of_seen"}


@pytest.mark.parametrize("tests", [(), ("unit",)])
def test_nothing_is_requested_without_data_tests(world, tests):
    assert request(world, tests=tests) is None


def test_unit_tests_are_left_to_dbt(world):
    found = request(world, tests=("unit", "of_orders"))
    assert found.mergeable == found.provable == {"of_orders"}
    assert "unit" not in found.premises


def test_what_is_built_and_the_share_to_verify_are_part_of_the_request(world):
    found = request(world, TestSettings(ALL, 0.25), nodes=("orders", "below"))
    assert (found.builds, found.verified_share) == ({"orders", "below"}, 0.25)


@pytest.mark.parametrize("name", [*UPSTREAM, "clock", "of_orders", "of_below"])
def test_proofs_rely_on_tests_of_what_is_read_if_nothing_can_move_unseen(world, name):
    found = request(world, tests=(*UPSTREAM, "clock", "of_orders", "of_below"))
    assert (name in found.premises) == (name in SOUND)
    assert found.passed == {}  # all of them run


def test_a_view_that_gives_other_rows_at_another_time_may_move_unseen(world):
    world.evidence["seen"] = Evidence(is_deterministic=False)
    world.build(requests={"seen": Request.BUILD})
    assert "of_seen" not in request(world, tests=UPSTREAM).premises


def test_a_view_whose_code_changes_may_become_one_of_those(world):
    world.edit("seen", sql="random()")
    found = request(world, nodes=("seen", "orders"), tests=UPSTREAM)
    assert found.premises == {"of_stg", "of_source"}


@pytest.mark.parametrize(
    ("parent", "is_provable"),
    [("stg", True), ("seen", True), ("raw.orders", True), ("loose", False), ("raw.loose", False)],
)
def test_a_test_of_two_relations_is_proven_only_if_the_other_stays_as_its_model_read_it(world, parent, is_provable):
    world.add_test("related", "orders", parent)
    assert ("related" in request(world, tests=("related",)).provable) == is_provable


def test_a_source_that_was_never_probed_may_move_unseen(world):
    del world.tokens["raw.orders"]
    assert request(world, tests=UPSTREAM).premises == {"of_stg"}


def test_a_model_that_is_built_too_makes_the_tests_of_its_parents_premises(world):
    tests = ("of_stg", "of_orders")
    assert request(world, nodes=("below",), tests=tests).premises == {"of_orders"}
    assert request(world, nodes=("orders", "below"), tests=tests).premises == {"of_stg", "of_orders"}


def test_without_proofs_nothing_is_known_of_others(world):
    found = request(world, TestSettings(AGGREGATE), tests=("of_stg", "of_orders"))
    assert (found.premises, found.passed) == (frozenset(), {})


def test_verdicts_that_stand_are_premises_of_proofs(world):
    assert set(request(world).passed) == SOUND


def _edited(world):
    world.edit("of_stg")


def _reloaded(world):
    world.load("raw.orders")


def _answered(status):
    def change(world):
        for name in SOUND:
            world.verdicts[name] = replace(world.verdicts[name], status=status)

    return change


def _reset(world):
    for name in SOUND:
        del world.verdicts[name]


@pytest.mark.parametrize(
    ("change", "standing"),
    [
        (_edited, SOUND - {"of_stg"}),
        # The table has its rows until it is built again.
        (_reloaded, {"of_stg"}),
        (_answered(WARN), set()),
        (_answered(FAIL), set()),
        (_answered(ERROR), set()),
        (_reset, set()),
    ],
    ids=["edited", "new data", "warned", "failed", "not run", "reset"],
)
def test_a_verdict_stands_for_the_same_code_the_same_versions_and_only_as_a_pass(world, change, standing):
    change(world)
    assert set(request(world).passed) == standing


@pytest.mark.parametrize(
    ("nodes", "standing"),
    [
        (("orders",), {"of_stg", "of_seen", "of_source", "of_over"}),
        (("orders", "below"), {"of_stg", "of_seen", "of_source", "of_over"}),
        # It is about the rows before this build, and nobody runs the test after it.
        (("stg", "orders"), {"of_seen", "of_source"}),
        (("seen", "orders"), {"of_stg", "of_source", "of_over"}),
    ],
    ids=lambda names: " ".join(sorted(names)),
)
def test_no_verdict_stands_about_what_the_invocation_builds_anew(nodes, standing):
    arrows = """
    raw.orders >> stg >> view:on_stg >> view:over >> orders >> below
    stg >> orders
    raw.orders >> view:seen >> orders
    raw.orders >> orders
    """
    world = World(graph(arrows))
    for name, read in {"of_stg": "stg", "of_seen": "seen", "of_source": "raw.orders", "of_over": "over"}.items():
        world.add_test(name, read)
    world.add_test("of_orders", "orders")
    world.build()
    assert set(request(world, nodes=nodes).passed) == standing


def test_no_verdict_stands_about_what_moved_since_it_was_captured(world):
    ledger = Ledger(world.project, world.state)
    ledger.moved(["raw.orders"])
    assert set(request(world, ledger=ledger).passed) == {"of_stg"}


def test_the_verdicts_of_the_run_come_before_those_of_earlier_runs(world):
    failed = replace(world.verdicts["of_stg"], status=FAIL)
    assert set(request(world, verdicts={"of_stg": failed}).passed) == SOUND - {"of_stg"}
    passed = replace(world.verdicts["of_stg"], run_id="77665544", at=world.now)
    world.verdicts["of_stg"] = failed
    assert request(world, verdicts={"of_stg": passed}).passed["of_stg"] == "passed 12:30, run 7766"


@pytest.mark.parametrize(
    ("later", "label"),
    [
        (timedelta(minutes=1), "passed 12:00, run run "),
        (timedelta(hours=11, minutes=59), "passed 12:00, run run "),
        (timedelta(hours=12), "passed 2026-03-01 12:00, run run "),
        (timedelta(days=40), "passed 2026-03-01 12:00, run run "),
    ],
    ids=str,
)
def test_a_label_has_the_day_of_another_day(world, later, label):
    verdict = world.verdicts["of_stg"]
    assert label_in_proofs(verdict, verdict.at + later) == label


# Verdicts and contradictions of proofs


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Recording:
    """A recorder of a run that builds `orders`, with what it logs and notes."""

    def __init__(self, world, instance):
        self.world, self.errors = world, []
        context = SimpleNamespace(
            log=SimpleNamespace(error=self.errors.append),
            selected_asset_keys=frozenset(),
            selected_asset_check_keys=frozenset(),
        )
        setup = SimpleNamespace(
            instance=instance,
            project=SimpleNamespace(state_name="shop"),
            context=context,
            run_id="77665544",
            loaded=SimpleNamespace(project=world.project, database=""),
            log_state=SimpleNamespace(verdicts=self),
            testing=TestSettings(ALL, 1.0),
            limits=None,
        )
        self.outcomes = Outcomes(world.graph, SimpleNamespace(tests=(), tests_again=(), selected=frozenset()))
        report = SimpleNamespace(answered=lambda *_: None)
        self.recorder = Recorder(setup, self.outcomes, report, lambda uid: "")
        self.recorder.begin(RunPlan(world.plan(), world.state, world.state), frozenset())

    def answered(self, status=PASS, name="of_orders", **options):
        answer = TestAnswer(name, status, None, AnsweredTest(name, **options))
        return self.recorder.answered(self.world.graph.tests[name], answer, None)

    def read(self):
        return self.world.verdicts

    def forget(self, tests):
        for name in list(tests):
            del self.world.verdicts[name]


PROOF = {"how": How.PROVEN, "proof": "unique(id) holds: seen.id is unique", "premises": ("of_seen",)}


def test_a_verdict_tells_how_it_was_found(world, instance):
    recording = Recording(world, instance)
    verdict = recording.answered(**PROOF)
    assert (verdict.how, verdict.proof) == (How.PROVEN, PROOF["proof"])
    assert verdict.versions == world.verdicts["of_orders"].versions
    assert recording.answered(how=How.MERGED, merged=3).how is How.MERGED
    verified = recording.answered(how=How.RUN, proof="p", premises=("of_seen",))
    assert (verified.how, verified.proof) == (How.RUN, "")
    assert recording.outcomes.verdict("of_orders") == verified
    assert recording.errors == []


@pytest.mark.parametrize(
    ("premises", "is_void"), [(("of_seen",), True), (("of_stg", "of_source"), True), (("of_stg",), False), ((), False)]
)
def test_a_proven_verdict_is_void_if_what_a_premise_reads_has_moved(world, instance, premises, is_void):
    recording = Recording(world, instance)
    recording.recorder.looked_again(frozenset({"raw.orders"}), {}, seeds=frozenset(), written=frozenset())
    verdict = recording.answered(**{**PROOF, "premises": premises})
    assert (verdict.versions == {}) == is_void
    world.verdicts["of_orders"] = verdict
    decision = world.plan().tests["of_orders"]
    assert decision.runs == is_void
    assert not is_void or decision.reason is TestReason.NEW_DATA


def test_a_test_that_ran_alone_is_not_void_with_the_premises_of_its_proof(world, instance):
    recording = Recording(world, instance)
    recording.recorder.looked_again(frozenset({"raw.orders"}), {}, seeds=frozenset(), written=frozenset())
    assert recording.answered(how=How.RUN, proof="p", premises=("of_seen",)).versions


def test_a_contradicted_proof_is_an_error_and_stops_proofs_until_they_are_trusted_again(world, instance, monkeypatch):
    recording = Recording(world, instance)
    recording.answered(FAIL, how=How.RUN, proof="unique(id) holds: a mistake", failures=2)
    (error,) = recording.errors
    assert error.startswith("of_orders failed, although it was proven: unique(id) holds: a mistake.")
    assert "dagster-sao tests --trust-proofs" in error
    assert contradictions.found_contradiction(instance, "shop") == error
    assert contradictions.found_contradiction(instance, "another_shop") == ""
    # Another version may have mended the proof.
    with monkeypatch.context() as patch:
        patch.setattr(contradictions, "version", lambda _: "999")
        assert contradictions.found_contradiction(instance, "shop") == ""
    contradictions.trust_proofs(instance, "shop")
    assert contradictions.found_contradiction(instance, "shop") == ""
    contradictions.trust_proofs(instance, "shop")


def test_after_a_contradiction_all_that_was_proven_is_run_again(world, instance):
    recording = Recording(world, instance)
    world.verdicts["of_stg"] = replace(world.verdicts["of_stg"], how=How.PROVEN, proof="by mistake")
    recording.answered(name="of_seen", how=How.PROVEN, proof="by mistake")
    recording.answered(name="of_source", how=How.MERGED, merged=2)
    recording.answered(FAIL, how=How.RUN, proof="by mistake", failures=2)
    # The recorder has another clock than the world.
    world.verdicts.update({uid: replace(one, at=world.now) for uid, one in recording.outcomes.take_unwritten().items()})
    decisions = world.plan().tests
    assert {name for name, decision in decisions.items() if decision.runs} == {"of_stg", "of_seen"}
    # Also in what is left of this run.
    assert request(world, recording.recorder.testing).provable == frozenset()
    assert request(world, recording.recorder.testing).mergeable == {"of_orders"}


def test_a_proof_that_its_test_confirms_is_no_contradiction(world, instance):
    recording = Recording(world, instance)
    recording.answered(PASS, how=How.RUN, proof="unique(id) holds", failures=0)
    recording.answered(FAIL, how=How.RUN, failures=2)
    assert recording.errors == []
    assert contradictions.found_contradiction(instance, "shop") == ""


# The run's table


def test_the_runs_table_tells_how_each_answer_was_found_and_its_proof(world):
    report = RunReport(None, world.graph, None)
    decision = TestDecision(TestAction.RUN, TestReason.NEW_DATA, "New data in stg")
    proven = replace(world.verdicts["of_orders"], how=How.PROVEN, proof="unique(id) holds: a | b")
    merged = replace(world.verdicts["of_seen"], how=How.MERGED)
    report.answered("of_orders", proven, decision)
    report.answered("of_seen", merged, decision)
    report.answered("of_stg", world.verdicts["of_stg"], decision)
    report.not_run("of_below", TestDecision(TestAction.REUSE, TestReason.SAME_DATA, "Passed"), proven)
    for name, failures in (("of_source", 0), ("of_loose", 2)):
        verified = AnsweredTest(name, How.RUN, proof="p", failures=failures)
        report.answered(name, world.verdicts[name], decision, verified)
    text, metadata = report.summary(1)
    assert text.endswith("; tests: 5 pass, 1 reused (1 merged, 1 proven); verified proofs: 2, contradicted: 1.")
    rows = metadata["decisions"].md_str.splitlines()
    assert {row for row in rows if row.startswith(("| of_o", "| of_se", "| of_st", "| of_b"))} == {
        "| of_orders | pass | proven | New data in stg. unique(id) holds: a \\| b |",
        "| of_seen | pass | merged | New data in stg |",
        "| of_stg | pass | run | New data in stg |",
        "| of_below | reused | reused | Passed |",
    }


@pytest.mark.parametrize(
    ("how", "proof", "expected"),
    [(How.RUN, "", {}), (How.MERGED, "", {}), (How.PROVEN, "unique(id) holds", {"proof": "unique(id) holds"})],
)
def test_the_json_of_a_test_has_how_and_the_proof(world, how, proof, expected):
    verdict = replace(world.verdicts["of_orders"], how=how, proof=proof, failures=0)
    found = TestOutcome("pass", "New data in stg", verdict).to_json()
    common = {"result": "pass", "reason": "New data in stg", "status": "pass", "failures": 0, "how": how.value}
    assert found == {**common, **expected}

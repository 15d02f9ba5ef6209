"""Which data tests share a query, what a shared query answers, and what is left to dbt."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from dbt_dagster_sao.data_tests.efficient import EfficientTests, answer_at_zero, groups_of
from dbt_dagster_sao.data_tests.handover import AnsweredTest, DataTestRequest, How, answered_test
from dbt_dagster_sao.data_tests.proofs import TestProofs

ORDERS, CUSTOMERS = "model.shop.orders", "model.shop.customers"
RELATION = '"db"."main"."orders"'


def not_null(column, **config):
    return {
        "unique_id": f"test.shop.not_null_{column}",
        "attached_node": ORDERS,
        "depends_on": {"nodes": [ORDERS]},
        "config": {"fail_calc": "count(*)", "warn_if": "!= 0", "error_if": "!= 0", **config},
        "compiled_code": f"select {column} from {RELATION} where {column} is null",
    }


def entries(*tests):
    return {test["unique_id"]: test for test in tests}


@dataclass
class Warehouse:
    """What the tests' queries find: the number of NULLs in each column."""

    tests: dict
    nulls: dict
    asked: list = field(default_factory=list)
    is_broken: bool = False

    def compiled(self, test):
        return self.tests[test]["compiled_code"]

    def failures(self, sql, tests):
        self.asked.append(sql)
        if self.is_broken:
            raise ConnectionError
        return [self.nulls[column] for column in "abc" if f"{column} is null" in sql]


def efficient(tests, request=None, **options):
    request = request or DataTestRequest(mergeable=frozenset(tests))
    return EfficientTests(request, "duckdb", tests.get, TestProofs(request, "duckdb", tests.get), **options)


ABC = entries(not_null("a"), not_null("b"), not_null("c"))
A, B, C = ABC


def test_one_query_answers_the_tests_of_a_relation():
    warehouse, tests = Warehouse(ABC, {"a": 0, "b": 0, "c": 0}), efficient(ABC)
    answers = [tests.answer(test, warehouse) for test in ABC]
    assert [(answer.how, answer.merged) for answer in answers] == [(How.MERGED, 3)] * 3
    assert len(warehouse.asked) == 1


def test_a_test_with_failures_is_left_to_dbt():
    warehouse, tests = Warehouse(ABC, {"a": 0, "b": 4, "c": 0}), efficient(ABC)
    answers = {test: tests.answer(test, warehouse) for test in ABC}
    assert [test for test, answer in answers.items() if answer is None] == [B]
    assert len(warehouse.asked) == 1


def test_no_answer_of_the_warehouse_is_no_answer_of_a_test():
    warehouse, tests = Warehouse(ABC, {"a": None, "b": 0, "c": 0}), efficient(ABC)
    assert tests.answer(A, warehouse) is None


def test_after_an_error_each_test_is_left_to_dbt_and_the_query_is_not_sent_again():
    warehouse, tests = Warehouse(ABC, {}, is_broken=True), efficient(ABC)
    assert [tests.answer(test, warehouse) for test in ABC] == [None] * 3
    assert len(warehouse.asked) == 1


def test_a_test_that_dbt_compiles_to_something_else_in_the_end_is_left_to_dbt():
    warehouse, tests = Warehouse(ABC, {"a": 0, "b": 0, "c": 0}), efficient(ABC)
    assert tests.answer(A, warehouse) is not None
    edited = {**ABC, B: {**ABC[B], "compiled_code": f"select b from {RELATION} where b > 7"}}
    assert tests.answer(B, Warehouse(edited, {})) is None


def test_threads_that_come_at_once_share_one_query():
    warehouse, tests = Warehouse(ABC, {"a": 0, "b": 0, "c": 0}), efficient(ABC)
    ready, found = threading.Barrier(3), {}

    def answer(test):
        ready.wait()
        found[test] = tests.answer(test, warehouse)

    threads = [threading.Thread(target=answer, args=(test,)) for test in ABC]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ({answer.how for answer in found.values()}, len(warehouse.asked)) == ({How.MERGED}, 1)


@pytest.mark.parametrize(
    ("config", "at_zero"),
    [
        ({}, (False, False)),
        ({"warn_if": ">10", "error_if": "> 100"}, (False, False)),
        ({"warn_if": "< 1"}, (True, False)),
        ({"error_if": "=0", "severity": "ERROR"}, (False, True)),
        ({"error_if": "between 1 and 3"}, None),
        ({"fail_calc": "sum(n)"}, None),
        ({"fail_calc": "COUNT( * )"}, (False, False)),
        ({"store_failures": True}, None),
        ({"store_failures": False}, (False, False)),
        ({"sql_header": "set x = 1"}, None),
    ],
)
def test_what_no_rows_mean_is_known_beforehand_or_dbt_runs_the_test(config, at_zero):
    assert answer_at_zero(not_null("a", **config), stores_failures=False) == at_zero


def test_where_all_tests_store_their_failures_each_is_run_unless_it_says_otherwise():
    assert answer_at_zero(not_null("a"), stores_failures=True) is None
    assert answer_at_zero(not_null("a", store_failures=False), stores_failures=True) == (False, False)


def groups(tests, builds=()):
    request = DataTestRequest(builds=frozenset(builds), mergeable=frozenset(tests))
    return sorted(groups_of(request, tests.get))


def relationship(column):
    test = not_null(column)
    return {**test, "unique_id": f"test.shop.relationship_{column}", "depends_on": {"nodes": [CUSTOMERS, ORDERS]}}


@pytest.mark.parametrize(
    ("builds", "is_together"),
    [((), True), ((ORDERS,), True), ((CUSTOMERS,), False), ((ORDERS, CUSTOMERS), False)],
)
def test_a_test_of_two_models_is_merged_unless_it_may_have_to_wait_for_the_other(builds, is_together):
    a, both = not_null("a"), relationship("b")
    found = groups(entries(a, both), builds)
    assert found == ([(a["unique_id"], both["unique_id"])] if is_together else [])


@pytest.mark.parametrize("read", [CUSTOMERS, "model.shop.between"])
def test_a_test_of_two_models_is_merged_where_its_own_waits_for_the_other_anyway(read):
    a, both = not_null("a"), relationship("b")
    nodes = {ORDERS: [read], "model.shop.between": [CUSTOMERS], CUSTOMERS: []}
    known = {**entries(a, both), **{uid: {"depends_on": {"nodes": parents}} for uid, parents in nodes.items()}}
    request = DataTestRequest(builds=frozenset({ORDERS, CUSTOMERS}), mergeable=frozenset(entries(a, both)))
    assert groups_of(request, known.get) == [(a["unique_id"], both["unique_id"])]


@pytest.mark.parametrize(
    ("between", "is_read_by_orders", "is_together"),
    [
        ({CUSTOMERS: ["model.shop.a"]}, False, False),
        (
            {CUSTOMERS: ["model.shop.b"], "model.shop.b": ["function.shop.f"], "function.shop.f": ["model.shop.a"]},
            False,
            False,
        ),
        ({CUSTOMERS: ["model.shop.a"]}, True, True),
        ({CUSTOMERS: ["source.shop.raw.a"]}, False, True),
    ],
)
def test_a_test_waits_for_what_is_built_above_what_is_not(between, is_read_by_orders, is_together):
    a, both = not_null("a"), relationship("b")
    nodes = {**between, ORDERS: ["model.shop.a"] if is_read_by_orders else []}
    known = {**entries(a, both), **{uid: {"depends_on": {"nodes": parents}} for uid, parents in nodes.items()}}
    request = DataTestRequest(builds=frozenset({ORDERS, "model.shop.a"}), mergeable=frozenset(entries(a, both)))
    assert groups_of(request, known.get) == ([(a["unique_id"], both["unique_id"])] if is_together else [])


@pytest.mark.parametrize("builds", [(), ("model.shop.a",)])
def test_tests_of_a_view_that_is_not_built_wait_for_what_it_reads(builds):
    a, both = not_null("a"), relationship("b")
    nodes = {ORDERS: ["model.shop.above"], CUSTOMERS: ["model.shop.a"]}
    known = {**entries(a, both), **{uid: {"depends_on": {"nodes": parents}} for uid, parents in nodes.items()}}
    request = DataTestRequest(builds=frozenset(builds), mergeable=frozenset(entries(a, both)))
    assert groups_of(request, known.get) == ([] if builds else [(a["unique_id"], both["unique_id"])])


def test_tests_with_other_settings_of_the_adapter_are_not_merged():
    assert groups(entries(not_null("a"), not_null("b", snowflake_warehouse="large"))) == []
    assert len(groups(entries(not_null("a", severity="warn"), not_null("b", where="b > 0", limit=3)))) == 1


def test_a_request_and_an_answer_are_read_as_they_were_written():
    request = DataTestRequest(
        frozenset({ORDERS}),
        frozenset({CUSTOMERS}),
        frozenset({A, B}),
        frozenset({C}),
        frozenset({B}),
        {A: "12:03"},
        0.25,
    )
    assert DataTestRequest.from_json(request.to_json()) == request
    answer = AnsweredTest(A, How.PROVEN, proof="because", premises=(B, C))
    assert answered_test(answer.to_json()) == answer
    assert answered_test('{"layout": 1, "node": "model.shop.orders"}') is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layout": 2}', '{"layout": 1}'])
def test_what_is_no_request_is_refused(text):
    with pytest.raises(ValueError, match=r"request|Expecting"):
        DataTestRequest.from_json(text)


@pytest.mark.parametrize(
    ("answer", "is_verified", "is_contradicted"),
    [
        (AnsweredTest(A, How.RUN, proof="because"), True, False),
        (AnsweredTest(A, How.RUN, proof="because", failures=1), True, True),
        (AnsweredTest(A, How.PROVEN, proof="because"), False, False),
        (AnsweredTest(A, How.MERGED, merged=2), False, False),
    ],
)
def test_a_proof_is_verified_by_a_run_and_contradicted_by_a_failure(answer, is_verified, is_contradicted):
    assert (answer.is_verified, answer.is_contradicted) == (is_verified, is_contradicted)

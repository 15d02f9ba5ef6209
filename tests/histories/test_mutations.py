"""The histories bite: with a rule taken out of the package, the history of its kind breaks a promise.

Each mutation puts back what the package did before it had the rule. What dbt traced would make up for most of them, so the
trace is taken away too where a mutation is about what the templates tell by themselves.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from dagster_sao.core.code import fingerprinter, read_evidence, text_facts, units
from dagster_sao.core.code.units import Units
from dagster_sao.core.code.variables import Variables
from dagster_sao.core.decision import planner
from dagster_sao.core.manifest.macros import Macros
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration.dbt.traces import TraceFile
from dagster_sao.orchestration.relations import relation_tokens
from dagster_sao.orchestration.sources.second_look import SecondLook
from dagster_sao.orchestration.state import read_state
from dagster_sao.warehouse.queries import duckdb_hash
from tests.histories.kinds import KINDS
from tests.histories.regressions import OF_KINDS
from tests.histories.world import Shop

Mutation = Callable[[], list[AbstractContextManager[Any]]]


def untraced() -> list[AbstractContextManager[Any]]:
    """Without the trace, and without the builds that its absence would bring."""
    return [
        patch.object(TraceFile, "get", lambda *_: None),
        patch.object(planner, "untracked_inputs", lambda _fingerprint, evidence: evidence.untracked),
    ]


def only_names_spelled_out() -> list[AbstractContextManager[Any]]:
    def reads(text: str) -> str:
        values, names = json.loads(before(text))
        return json.dumps([[read for read in values if not read[1].endswith("*")], names])

    before = text_facts._reads_to_json
    return [*untraced(), patch.object(text_facts, "_reads_to_json", reads)]


def only_macros_that_dbt_lists() -> list[AbstractContextManager[Any]]:
    return [*untraced(), patch.object(Macros, "_mentioned", lambda *_: iter(()))]


def no_reads_of(*kinds: str) -> Mutation:
    def mutation() -> list[AbstractContextManager[Any]]:
        before = Units.values_read

        def values_read(self: Any, unit: Any) -> set[Any]:
            return {read for read in before(self, unit) if read[0] not in kinds}

        return [*untraced(), patch.object(Units, "values_read", values_read)]

    return mutation


def no_command_line() -> list[AbstractContextManager[Any]]:
    def scopes(self: Variables, package: str) -> Any:
        return before(replace(self, command_line={}), package)

    before = Variables._scopes
    return [*untraced(), patch.object(Variables, "_scopes", scopes)]


def nothing_called_by_dbt() -> list[AbstractContextManager[Any]]:
    return [*untraced(), patch.object(Macros, "called_in_building", lambda *_: [])]


def no_hooks() -> list[AbstractContextManager[Any]]:
    return [*untraced(), *(patch.object(module, "hooks_of", lambda *_: []) for module in (units, fingerprinter))]


def one_look() -> list[AbstractContextManager[Any]]:
    return [patch.object(SecondLook, "look", lambda *_: None)]


def plain_hash() -> list[AbstractContextManager[Any]]:
    return [patch.object(duckdb_hash, "_beside", lambda *_: [])]


def all_relations_known() -> list[AbstractContextManager[Any]]:
    return [patch.object(read_evidence, "_named", lambda _labels: ())]


def no_other_writers() -> list[AbstractContextManager[Any]]:
    return [patch.object(StateSnapshot, "other_writer", lambda *_: None)]


def failures_live_in_runs() -> list[AbstractContextManager[Any]]:
    return [patch.object(read_state, "with_writers", lambda state, *_: state)]


def no_definitions() -> list[AbstractContextManager[Any]]:
    return [patch.object(relation_tokens, "relation_definitions", lambda *_: {})]


MUTATIONS: Mapping[str, Mutation] = {
    "values read under a computed name": only_names_spelled_out,
    "macros called only while dbt executes": only_macros_that_dbt_lists,
    "an environment variable that a macro reads": no_reads_of("env_var"),
    "meta, tags and description that SQL reads": no_reads_of("meta", "config", "model", "graph"),
    "variables on dbt's command line": no_command_line,
    "overridden macros of dbt": nothing_called_by_dbt,
    "hooks, their macros and variables": no_hooks,
    "data that comes and goes during a build": one_look,
    "values that look alike": plain_hash,
    "relations that dbt does not know": all_relations_known,
    "questions that SQL asks while it is rendered": all_relations_known,
    "relations that two models take turns to write": no_other_writers,
    "failures whose run is deleted": failures_live_in_runs,
    "views that somebody replaces": no_definitions,
}


def test_the_mutations_are_of_kinds():
    assert set(MUTATIONS) <= set(KINDS)


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.parametrize("kind", MUTATIONS)
def test_the_histories_of_a_kind_break_without_its_rule(kind, tmp_path):
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        for mutation in MUTATIONS[kind]():
            stack.enter_context(mutation)
        shop, broken = Shop(tmp_path.resolve()), []
        for promise, history in OF_KINDS[kind].items():
            try:
                with shop.world() as world:
                    world.live(history)
            except AssertionError:
                broken.append(promise)
    print(kind, broken)
    assert broken

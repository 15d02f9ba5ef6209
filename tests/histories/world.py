"""One history, lived: a dbt project with its warehouse, a Dagster instance, its sensors and runs, and the time."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import dagster as dg
from dagster_dbt import DbtProject

from dagster_sao.core.decision.decide import Action
from dagster_sao.orchestration.project.parsing import is_stale
from dagster_sao.orchestration.state.run_activity import RunActivity
from tests.histories.inprocess_dbt import PARTIAL_PARSE, Accident, InProcessDbt, run_dbt
from tests.histories.project import DOUBLED, INCREMENTAL, NODES, NOT_COMPARED, TESTS_OF_HISTORY, TRUTH, ProjectFiles
from tests.histories.raw_data import SOURCES, Content, RawData, failing_tests, read_relations
from tests.histories.readers import AGREEING, DIALS, ENVIRONMENT
from tests.histories.simulated_time import SimulatedTime
from tests.histories.station import Run, Station
from tests.histories.steps import Step
from tests.histories.watch import WINDOWED, EndedRun

NODES_SET = frozenset(NODES)
_LONG_ENOUGH = timedelta(hours=7)
"""Longer than every build_after, untracked interval and retry wait."""
_LONG_AGO = 1_000_000_000
"""When an older file was written, in seconds since 1970."""
_SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_STATE_FILES = ("manifest.json", PARTIAL_PARSE)


@dataclass
class _Origin:
    """The state of the world after its first build, from which every history starts."""

    warehouse: bytes
    data: RawData
    runs: sqlite3.Connection
    events: sqlite3.Connection
    last_build: EndedRun | None
    offset: timedelta


class Shop:
    """The folder of the project under test, parsed and built once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = ProjectFiles(folder)
        self.current, self.base = folder / "target" / "current", folder / "target" / "base"
        parse(folder, self.current)
        self.base.mkdir()
        for name in _STATE_FILES:
            shutil.copy(self.current / name, self.base)
        self.publish()
        self._origin: _Origin | None = None

    def publish(self) -> None:
        """Make the current parse the one that the package sees."""
        temporary = self.folder / "target" / "manifest.json.new"
        shutil.copyfile(self.current / "manifest.json", temporary)
        temporary.replace(self.folder / "target" / "manifest.json")

    @contextmanager
    def world(self) -> Iterator[World]:
        """Return to the first state, and let a new history begin there."""
        if self._origin is None:
            self._origin = self._begin()
        self._reset(self._origin)
        time = SimulatedTime()
        time.offset = self._origin.offset
        with patch.dict(os.environ), time.in_force(), dg.DagsterInstance.ephemeral() as instance:
            self._origin.runs.backup(_sqlite(instance.run_storage))
            self._origin.events.backup(_sqlite(instance.event_log_storage))
            yield World(self, copy.deepcopy(self._origin.data), instance, time, self._origin.last_build)

    def _begin(self) -> _Origin:
        data = RawData(self.folder)
        time = SimulatedTime()
        with time.in_force(), dg.DagsterInstance.ephemeral() as instance:
            world = World(self, data, instance, time, None)
            world.quiesce()
            world.assert_current()
            runs, events = _copy(instance.run_storage), _copy(instance.event_log_storage)
            warehouse = (self.folder / "warehouse.duckdb").read_bytes()
            return _Origin(warehouse, data, runs, events, world.watch.last_build, time.offset)

    def _reset(self, origin: _Origin) -> None:
        self.files.reset()
        self.files.write()
        for name in _STATE_FILES:
            shutil.copy(self.base / name, self.current)
        self.publish()
        for path in self.folder.glob("warehouse.duckdb*"):
            path.unlink()
        (self.folder / "warehouse.duckdb").write_bytes(origin.warehouse)
        origin.data.rewrite("people")


class World(Station):
    """One history in progress."""

    def __init__(
        self, shop: Shop, data: RawData, instance: dg.DagsterInstance, time: SimulatedTime, last_build: EndedRun | None
    ) -> None:
        self._shop, self._files, self._data = shop, shop.files, data
        self._number = 0
        self._has_unpublished_effect = False
        self._variables: dict[str, int] = {}
        self._copied: tuple[bytes, RawData] | None = None
        self._wiped_at: datetime | None = None
        self._parsed_content = self._files.content()
        super().__init__(shop.folder, shop.current, instance, time, last_build)

    # Data

    def _insert(self, source: str) -> None:
        self._data.insert(source, 2)

    def _update(self, source: str) -> None:
        self._data.update(source)

    def _delete(self, source: str) -> None:
        self._data.delete(source)

    def _rewrite(self, source: str) -> None:
        self._data.rewrite(source)

    def _recreate(self, source: str) -> None:
        self._data.recreate(source)

    def _spoil_value(self) -> None:
        self._data.spoil_value()

    def _repair_values(self) -> None:
        self._data.repair_values()

    def _duplicate_id(self) -> None:
        self._data.duplicate_id()

    def _deduplicate(self) -> None:
        self._data.deduplicate()

    def _spoil_group(self) -> None:
        self._data.spoil_group()

    def _repair_groups(self) -> None:
        self._data.repair_groups()

    def _spoil_sign(self) -> None:
        self._data.spoil_sign()

    def _repair_signs(self) -> None:
        self._data.repair_signs()

    def _spoil_amount(self) -> None:
        self._data.spoil_amount()

    def _repair_amounts(self) -> None:
        self._data.repair_amounts()

    # Code

    def _edit(self, model: str, how: str, published: str = "") -> None:
        self._number += 1
        edited = self._files.models[model]
        if how == "column":
            edited.extra = f", {self._number} as extra_{model}"
        elif how == "break":
            edited.extra = f", error('broken') as extra_{model}"
        elif how == "repair":
            edited.extra = ""
        elif how == "comment":
            edited.decoration = f"-- edit {self._number}\n"
        else:
            edited.decoration = "\n" * self._number
        self._edited(published, has_effect=how not in {"comment", "white space"})

    def _edit_rows(self, how: str, published: str = "") -> None:
        self._files.models["t_people"].decoration = DOUBLED if how == "double" else ""
        self._edited(published, has_effect=True)

    def _edit_macro(self, how: str, published: str = "") -> None:
        self._number += 1
        if how == "factor":
            self._files.factor += 1
        else:
            self._files.macro_comment = f"{{# edit {self._number} #}}"
        self._edited(published, has_effect=how == "factor")

    def _edit_var(self, name: str, published: str = "") -> None:
        setattr(self._files, name, getattr(self._files, name) + 1)
        self._edited(published, has_effect=name == "scale")

    def _switch(self, model: str, published: str = "") -> None:
        config = self._files.models[model].config
        config["materialized"] = "'view'" if config["materialized"] == "'table'" else "'table'"
        self._edited(published, has_effect=True)

    def _build_after(self, hours: int, published: str = "") -> None:
        self.watch.build_after = timedelta(hours=hours)
        freshness = f"{{'build_after': {{'count': {hours}, 'period': 'hour'}}}}"
        self._files.models[WINDOWED].config["freshness"] = freshness
        self._edited(published, has_effect=True)

    def _edit_seed(self, published: str = "") -> None:
        self._number += 1
        self._files.rates[0] = ("a", 100 + self._number)
        self._edited(published, has_effect=True)

    def _edit_seed_columns(self, published: str = "") -> None:
        """Give the seed another type of numbers and another order of columns, or take both back."""
        self._files.has_precise_rates = not self._files.has_precise_rates
        self._edited(published, has_effect=True)

    def _edit_test(self, how: str, published: str = "") -> None:
        files = self._files
        if how == "severity":
            files.people_severity = "warn" if files.people_severity == "error" else "error"
        elif how == "values":
            files.windowed_values = "[a, b, c]" if files.windowed_values == "[a]" else "[a]"
        elif how == "add":
            files.has_added_test = not files.has_added_test
        else:
            files.unit_events = 99 if files.unit_events == 2 else 2
        self._edited(published, has_effect=True)

    def _edited(self, published: str, *, has_effect: bool) -> None:
        self._files.write()
        if has_effect:
            if self._has_unpublished_effect:
                # What was built from files that are newer than the manifest may be of another code now.
                self.watch.learned(NODES)
            self._has_unpublished_effect = True
            self.watch.is_excused = True
        if published:
            self._publish()

    def _publish(self) -> None:
        self._assert_noticed()
        parse(self._shop.folder, self._shop.current, self._variables)
        self._shop.publish()
        if self._has_unpublished_effect:
            # Until now dbt may have built what the package did not know of.
            self.watch.learned(NODES)
            self._has_unpublished_effect = False

    def _assert_noticed(self) -> None:
        """See that a command which parses by itself when that is needed would parse now."""
        content = self._files.content()
        if content != self._parsed_content:
            noticed = is_stale(DbtProject(self._shop.folder), self._variables)
            assert noticed, (
                f"stale manifest: {_different(self._parsed_content, content)} changed, and nothing parses it"
            )
        self._parsed_content = content

    # What a build reads though neither its parents nor a literal name tell so

    def _turn(self, dial: str, published: str = "") -> None:
        self._files.dials[dial] += 1
        self._edited(published, has_effect=True)

    def _environment(self, published: str = "") -> None:
        os.environ[ENVIRONMENT] = str(int(os.environ.get(ENVIRONMENT, "0")) + 1)
        # Decisions read it at once, without another parse.
        self.watch.learned(NODES)
        self._edited(published, has_effect=True)

    def _command_line(self, number: int) -> None:
        """Deploy with another value for `--vars`, or with none."""
        self._variables = {"given": number} if number else {}
        self._options = {"variables": self._variables}
        self._has_unpublished_effect = True
        self._publish()
        self.restart()

    def _move(self, how: str) -> None:
        """Move a file, delete it, or bring it back, and deploy that."""
        files = self._files
        if how == "away":
            files.moved_to = "models/moved" if files.moved_to == "models" else "models"
        else:
            files.moved_to = None if how == "delete" else "models"
        self._edited("published", has_effect=True)
        self.restart()

    def _put_in_place(self, published: str = "") -> None:
        """Put an older file in the place of one."""
        self._number += 1
        self._files.moved_at = _LONG_AGO + self._number
        self._turn("moved", published)
        self._files.moved_at = 0

    def _turn_back(self, dial: str) -> None:
        self._files.dials[dial] = DIALS[dial]
        self._edited("", has_effect=True)

    def _alter_columns(self, how: str) -> None:
        self._data.alter_columns(how)

    def _replace_view(self, name: str) -> None:
        """Let somebody put an empty view in the place of a model's view."""
        if self._data.empty_view(name):
            self.watch.learned([name])

    def _alter_nested(self, column: str) -> None:
        self._data.alter_nested(column)

    def _change_beside(self, table: str) -> None:
        self._data.change_beside(table)
        self.watch.learned(["t_unknown", "t_asked"])

    def _change_parts(self) -> None:
        self._data.change_parts()
        self.watch.learned(["t_asked"])

    def _copy_database(self) -> None:
        self._copied = (self._shop.folder / "warehouse.duckdb").read_bytes(), copy.deepcopy(self._data)

    def _put_back(self) -> None:
        """Put the copy of the database in its place, if there is one, after a look at what was built last."""
        if self._copied is not None:
            self._freshness()
            content, data = self._copied
            (self._shop.folder / "warehouse.duckdb.wal").unlink(missing_ok=True)
            (self._shop.folder / "warehouse.duckdb").write_bytes(content)
            self._data = copy.deepcopy(data)
            self._data.rewrite("people")
            self.watch.learned([*NODES, *SOURCES])
            self.watch.is_excused = True

    # What is there only while dbt runs

    def _blip(self, source: str) -> None:
        """Let rows come before dbt reads a source, and go before the run ends."""

        accident = InProcessDbt.stage.accident

        def come() -> None:
            self._is_disturbed = True
            accident.before_events = self._data.blip(source)
            self.watch.learned([source])

        accident.before_dbt = come

    def _blip_seed(self) -> None:
        """Let a seed's file be another one while dbt loads it."""

        accident = InProcessDbt.stage.accident

        def come() -> None:
            self._is_disturbed = True
            rates, self._files.rates = self._files.rates, [*self._files.rates, ("c", 7)]
            self._files.write()
            self.watch.learned(["rates"])

            def go() -> None:
                self._files.rates = rates
                self._files.write()

            accident.before_events = go

        accident.before_dbt = come

    # Trouble

    def _wipe(self, name: str) -> None:
        self._instance.wipe_assets([key for key in self.project.load().keys.unique_ids if key.path[-1] == name])
        self.watch.learned([name])
        self.watch.is_excused = True
        self._wiped_at = self._time.now()

    def _set_back(self, minutes: int) -> None:
        """Set the clock back, but not to before a wipe: Dagster hides what it records of that asset until then."""
        if self._wiped_at is None or self._time.now() - timedelta(minutes=minutes) > self._wiped_at:
            super()._set_back(minutes)

    def _crash(self, what: str, at: int) -> None:
        accident = InProcessDbt.stage.accident
        if what == "events":
            accident.lose_events_from = at
        else:
            accident.kill_dbt_at, accident.run_survives = at, what == "dbt"

    def _meanwhile(self, when: str, step: Step) -> None:
        def happen() -> None:
            self._is_disturbed = True
            self.take(tuple(step))
            self._freshness()
            self._automation()

        if when == "before dbt":
            InProcessDbt.stage.accident.before_dbt = happen
        else:
            InProcessDbt.stage.accident.before_events = happen

    def _elsewhere(self, step: Step) -> None:
        """Let another code location see new data after dbt ended: it knows nothing of the run that is under way here."""

        def happen() -> None:
            self._is_disturbed = True
            self.take(tuple(step))
            with patch("dagster_sao.orchestration.sources.sensor.run_activity", return_value=RunActivity({}, {}, {})):
                self._freshness()

        InProcessDbt.stage.accident.before_events = happen

    # What must hold of a run

    def _judge_run(self, asked: Run, built: AbstractSet[str]) -> None:
        """See that a run which decides by itself built nothing on what a test of error severity does not pass."""
        if not asked.decides or self._is_disturbed or (asked.is_automated and self._has_unseen_data):
            return
        failing = failing_tests(self._shop.folder / "warehouse.duckdb", TRUTH)
        graph = self.project.load().project.graph
        for uid, test in graph.tests.items():
            if test.name in failing and test.is_error and not self._has_unpublished_effect:
                wrong = built & {node.rsplit(".", 1)[-1] for node in graph.gates.gated_by(uid)}
                assert not wrong, f"unproven parent: {sorted(wrong)} were built on what fails {test.name}"

    # Rest

    def settle(self) -> None:
        """Come to rest, with all waits elapsed, and compare the warehouse with a full build."""
        InProcessDbt.stage.accident = Accident()
        self._publish()
        self.quiesce()
        self._time.advance(_LONG_ENOUGH)
        self.watch.advances += 1
        self.quiesce()
        self.assert_current()

    _settle = settle

    def assert_current(self) -> None:
        """Compare each relation with what a full `dbt build` of the current project makes of the current data."""
        oracle = self._shop.folder / "oracle.duckdb"
        self._data.copy_to(oracle)
        folder = self._shop.folder
        command = ["--no-write-json", "build", "--target", "oracle", *_given(self._variables)]
        build: Any = run_dbt(command, folder, folder / "target" / "oracle")
        statuses = {r.node.name: str(r.status) for r in build.result.results}
        built = {name for name, status in statuses.items() if status == "success"}
        self._assert_tested(statuses)
        compared = built.intersection(NODES) - NOT_COMPARED
        if "events" in self._data.restored:
            compared -= INCREMENTAL
        expected = read_relations(oracle, sorted(compared))
        found = read_relations(folder / "warehouse.duckdb", sorted(compared))
        for name in sorted(compared):
            _assert_same(name, expected[name], found[name])
        for child, parent in AGREEING.items():
            rows = read_relations(folder / "warehouse.duckdb", [child, parent])
            assert rows[child] == rows[parent], f"missed update: {child} holds {rows[child]}, {parent} {rows[parent]}"

    def _assert_tested(self, statuses: Mapping[str, str]) -> None:
        """Compare verdicts and what they hold with what a full build answers, skips and fails."""
        is_restored = "events" in self._data.restored
        verdicts = self._verdicts()
        skipped = INCREMENTAL if is_restored else frozenset()
        for name, verdict in verdicts.items():
            expected = statuses.get(name)
            if expected in {"pass", "warn", "fail", "error"} and name not in TESTS_OF_HISTORY:
                assert verdict.status.value == expected, f"wrong verdict: {name} is {verdict}, a full build: {expected}"
        unknown = {n for n, s in statuses.items() if s in {"pass", "warn", "fail", "error"}} - NODES_SET - set(verdicts)
        assert not unknown, f"no verdict: {sorted(unknown)} were never run"
        failing = failing_tests(self._shop.folder / "warehouse.duckdb", {n: TRUTH[n] for n in TESTS_OF_HISTORY})
        for name in TESTS_OF_HISTORY & set(verdicts):
            is_current = statuses.get(name) != "skipped"
            assert not is_current or verdicts[name].is_failing == (name in failing), f"wrong verdict: {name}"
        held = {n for n, d in self._decisions().items() if d.action in {Action.HOLD, Action.SKIP}}
        stopped = {name for name, status in statuses.items() if status in {"skipped", "error"}} & NODES_SET
        assert held - skipped == stopped - skipped, f"wrong hold: {sorted(held)}, dbt stops {sorted(stopped)}"
        self._assert_shown(verdicts)


def _assert_same(name: str, expected: Content, found: Content) -> None:
    if expected == found:
        return
    if name == "t_all" and isinstance(expected, list) and isinstance(found, list):
        # It waits until both of its sources have changed, so one side may be old, but not both.
        assert any(row in expected for row in found), f"missed update: t_all holds {found}, both sides old"
        return
    raise AssertionError(f"missed update: {name} holds {found}, a full build makes {expected}")


def parse(folder: Path, target_path: Path, variables: Mapping[str, int] = MappingProxyType({})) -> None:
    """Run `dbt parse`. Raises what dbt raises."""
    result = run_dbt(["parse", "--target", "warehouse", *_given(variables)], folder, target_path)
    if not result.success:
        raise result.exception or AssertionError("dbt cannot parse the project")


def _different(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return sorted(Path(name).name for name in {*before, *after} if before.get(name) != after.get(name))


def _given(variables: Mapping[str, int]) -> list[str]:
    return ["--vars", json.dumps(dict(variables))] if variables else []


def _sqlite(storage: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = storage._held_conn.connection.dbapi_connection
    return connection


def _copy(storage: Any) -> sqlite3.Connection:
    copied = sqlite3.connect(":memory:")
    _sqlite(storage).backup(copied)
    return copied

"""The language of the case files in `cases/`: one step a line, read by people first.

== a name, which is the promise            starts a case
graph src.orders >> view:stg >> orders     the project (see graphs.py); further lines may be indented
adapter postgres                           what it runs on (duckdb unless said)
policy orders build_after=1h updates_on=all
thresholds src.orders error_after=1d       how old the source may be
star stg                                   the node selects `*`
build [taking 10m]                         plan and build what the plan says, with the sensor's eyes
run [taking 10m]                           the same with a job's eyes
hand orders stg                            build just these, because somebody asked
select orders stg                          a job of just these
refuses orders                             its config says `full_refresh: false`
limit orders                               it is built with `--empty`
limiting --empty                           tests read a part of the rows from now on; `limiting` ends it
fail orders                                plan and build; this one fails
continue stg                               `on_error: continue`: what reads it is built also when it failed
test ids on orders [warn] [volatile]       a data test (of `a, b`: that reads both); `unit math on orders`: a unit test
break ids / warn ids / error ids / mend ids    what it answers from now on
interval ids 30m                           how long its answer stands when it is volatile
interrupt orders / kill orders             its run ends without a word (kill: and had noted what orders follows from)
hook orders moves src.orders               from now on each run that builds orders gives the source another token at its end
load src.orders [token]                    the source has another token (or this one)
columns orders text                        its relation has other columns from now on
asks stg rows                              its templates query rows (columns, others) of what it reads when it is built
unlisted src.orders                        the warehouse does not list its columns
late                                       the database binds a view anew whenever it is read
edit orders [config: materialized=view]    its SQL changes (or this part of its fingerprint)
drop orders                                its relation is gone from the warehouse
overwrite orders by other [of shop.big] [as the same | in turn 2]   something else writes its relation (the same rows)
restore orders                             its database is put back from an older copy
move orders                                the target has another database, with a copy of it
open orders                                whoever writes it has not come to an end
wait 1h 30m
builds stg orders                          plan: exactly these are built (none: `builds nothing`)
tests ids                                  plan: exactly these tests are run (none: `tests nothing`)
order ids, orders                          plan: what is built and tested, in this order
waves stg / orders, customers
expect orders reuse no_new_data: No new changes on any upstreams
expect in a job orders build new_data: New changes detected: stg
expect when asked orders build requested: Requested explicitly
expect when full refresh is asked orders build requested: Full refresh requested
expect selecting a,b orders reuse no_new_data: No new changes on any upstreams
expect test ids run never_run: Not run before in this environment
full refresh orders / no full refresh orders
eligible orders in 30m / not eligible orders
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from dagster_sao.core.code.evidence import Evidence, TracedReads
from dagster_sao.core.decision.decide import Decision, Request
from dagster_sao.core.decision.decide_tests import TestDecision
from dagster_sao.core.decision.plan import Mode
from dagster_sao.core.decision.plan_tests import TestScope
from dagster_sao.core.durations import parse_duration
from dagster_sao.core.manifest.policy import CodeChanges, ExternalChanges, OnCodeChange, SourcePolicy, UpdatesOn
from dagster_sao.core.state.state import VerdictStatus
from tests.core.graphs import World, graph

_SETTINGS = {
    "build_after": parse_duration,
    "lag_tolerance": parse_duration,
    "rebuild_every": parse_duration,
    "expire_with_sources": {"true": True, "false": False}.__getitem__,
    "updates_on": UpdatesOn,
    "code_changes": CodeChanges,
    "on_code_change": OnCodeChange,
    "external_changes": ExternalChanges,
}


@dataclass
class Scenario:
    """One case of a file."""

    name: str
    file: str
    line: int
    steps: list[tuple[int, str]] = field(default_factory=list)


def read_scenarios(folder: Path) -> Iterator[Scenario]:
    """Yield the cases of all files in `folder`."""
    for path in sorted(folder.glob("*.txt")):
        current: Scenario | None = None
        for number, text in enumerate(path.read_text().splitlines(), 1):
            if text.startswith("== "):
                if current:
                    yield current
                current = Scenario(text[3:].strip(), path.stem, number)
            elif current and text.startswith("    ") and current.steps[-1][1].startswith("graph"):
                line, before = current.steps[-1]
                current.steps[-1] = (line, f"{before}; {text.strip()}")
            elif current and text.strip() and not text.startswith("#"):
                current.steps.append((number, text.strip()))
        if current:
            yield current


class Play:
    """Plays one case."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._adapter_type = "duckdb"
        self._world: World | None = None

    @property
    def world(self) -> World:
        assert self._world is not None, "the case has no graph"
        return self._world

    def run(self) -> None:
        for number, text in self._scenario.steps:
            verb, _, rest = text.partition(" ")
            where = f"{self._scenario.file}.txt:{number}: {text}"
            step = getattr(self, f"_{verb}", None)
            assert step is not None, f"{where}: no such step"
            step(rest.strip(), where)

    def _graph(self, rest: str, _where: str) -> None:
        self._world = World(graph(rest, self._adapter_type))

    def _adapter(self, rest: str, _where: str) -> None:
        self._adapter_type = rest

    def _policy(self, rest: str, _where: str) -> None:
        node, *settings = rest.split()
        pairs = (setting.split("=") for setting in settings)
        self.world.ask(node, **{name: _SETTINGS[name](value) for name, value in pairs})

    def _thresholds(self, rest: str, _where: str) -> None:
        source, *thresholds = rest.split()
        pairs = (threshold.split("=") for threshold in thresholds)
        self.world.source_policies[source] = SourcePolicy(**{name: parse_duration(value) for name, value in pairs})

    def _star(self, rest: str, _where: str) -> None:
        self.world.stars.update(rest.split())

    def _build(self, rest: str, _where: str, mode: Mode = Mode.SENSOR) -> None:
        taking = parse_duration(rest.removeprefix("taking ") or "0s")
        self.world.apply(self.world.plan(mode=mode), taking=taking)

    def _run(self, rest: str, where: str) -> None:
        self._build(rest, where, Mode.JOB)

    def _hand(self, rest: str, _where: str) -> None:
        nodes = rest.split()
        asked = dict.fromkeys(nodes, Request.BUILD)
        self.world.build(selection=nodes, requests=asked, tests=TestScope(with_gates=False))

    def _select(self, rest: str, _where: str) -> None:
        self.world.build(selection=rest.split())

    def _test(self, rest: str, _where: str, *, unit: bool = False) -> None:
        name, _, what = rest.partition(" on ")
        words = what.replace(",", " ").split()
        about = [word for word in words if word not in {"warn", "volatile"}]
        options = {"is_error": "warn" not in words, "is_volatile": "volatile" in words}
        self.world.add_test(name, *about, unit=unit, **options)

    def _unit(self, rest: str, where: str) -> None:
        self._test(rest, where, unit=True)

    def _interval(self, rest: str, _where: str) -> None:
        name, _, interval = rest.partition(" ")
        self.world.intervals[name] = parse_duration(interval)

    def _break(self, rest: str, _where: str) -> None:
        self.world.answers.update(dict.fromkeys(rest.split(), VerdictStatus.FAIL))

    def _warn(self, rest: str, _where: str) -> None:
        self.world.answers.update(dict.fromkeys(rest.split(), VerdictStatus.WARN))

    def _error(self, rest: str, _where: str) -> None:
        self.world.answers.update(dict.fromkeys(rest.split(), VerdictStatus.ERROR))

    def _mend(self, rest: str, _where: str) -> None:
        for name in rest.split():
            del self.world.answers[name]

    def _tests(self, rest: str, where: str) -> None:
        expected = [] if rest == "nothing" else rest.split()
        assert sorted(self.world.plan().test_runs) == sorted(expected), where

    def _order(self, rest: str, where: str) -> None:
        plan = self.world.plan()
        assert plan.in_order(plan.builds, plan.test_runs) == rest.replace(",", " ").split(), where

    def _refresh(self, rest: str, _where: str) -> None:
        nodes = rest.split()
        self.world.build(selection=nodes, requests=dict.fromkeys(nodes, Request.FULL_REFRESH))

    def _limiting(self, rest: str, _where: str) -> None:
        self.world.limited_by = rest

    def _limit(self, rest: str, _where: str) -> None:
        self.world.limit(rest)

    def _refuses(self, rest: str, _where: str) -> None:
        self.world.refuse_full_refresh(rest)

    def _fail(self, rest: str, _where: str) -> None:
        self.world.apply(self.world.plan(), failing=rest.split())

    def _continue(self, rest: str, _where: str) -> None:
        self.world.continue_on_error(rest)

    def _interrupt(self, rest: str, _where: str) -> None:
        self.world.interrupt(rest)

    def _kill(self, rest: str, _where: str) -> None:
        self.world.kill(rest)

    def _hook(self, rest: str, _where: str) -> None:
        node, _, source = rest.partition(" moves ")
        self.world.hooks[node] = source

    def _load(self, rest: str, _where: str) -> None:
        source, _, token = rest.partition(" ")
        self.world.load(source, token or None)

    def _columns(self, rest: str, _where: str) -> None:
        name, _, text = rest.partition(" ")
        self.world.look()
        self.world.columns[name] = text

    def _unlisted(self, rest: str, _where: str) -> None:
        self.world.unlisted.update(rest.split())

    def _asks(self, rest: str, _where: str) -> None:
        node, about = rest.split()
        untracked = ("the catalog",) if about == "others" else ()
        self.world.evidence[node] = Evidence(TracedReads({}, **{f"asks_{about}": True}), untracked)

    def _late(self, _rest: str, _where: str) -> None:
        self.world.binds_views = False

    def _edit(self, rest: str, _where: str) -> None:
        node, _, part = rest.partition(" ")
        name, _, value = part.rpartition("=")
        self.world.edit(node, **({name: value} if name else {}))

    def _drop(self, rest: str, _where: str) -> None:
        self.world.missing.update(rest.split())

    def _alter(self, rest: str, _where: str) -> None:
        node, _, token = rest.partition(" ")
        self.world.altered[node] = token

    def _restore(self, rest: str, _where: str) -> None:
        for node in rest.split():
            self.world.restored.add(node)
            self.world.altered[node] = "restored"

    def _move(self, rest: str, _where: str) -> None:
        self.world.moved.update(rest.split())

    def _overwrite(self, rest: str, _where: str) -> None:
        node, _, writer = rest.partition(" by ")
        writer, _, is_same = writer.partition(" as the ")
        writer, _, turns = writer.partition(" in turn ")
        name, _, elsewhere = writer.partition(" of ")
        version = self.world.builds[node].data_version if is_same else ""
        self.world.overwrite(node, name, elsewhere=elsewhere, data_version=version, turns=int(turns or 0))

    def _open(self, rest: str, _where: str) -> None:
        self.world.writers[rest] = replace(self.world.writers[rest], is_open=True)

    def _block(self, rest: str, _where: str) -> None:
        self.world.blocked.add(rest)

    def _unblock(self, rest: str, _where: str) -> None:
        self.world.blocked.remove(rest)

    def _wait(self, rest: str, _where: str) -> None:
        self.world.now += parse_duration(rest)

    def _builds(self, rest: str, where: str) -> None:
        expected = [] if rest == "nothing" else rest.split()
        assert sorted(self.world.plan().builds) == sorted(expected), where

    def _waves(self, rest: str, where: str) -> None:
        expected = [sorted(wave.replace(",", " ").split()) for wave in rest.split("/")]
        assert [sorted(wave) for wave in self.world.plan().waves] == expected, where

    def _expect(self, rest: str, where: str) -> None:
        options: dict[str, object] = {}
        if rest.startswith("in a job "):
            rest, options = rest.removeprefix("in a job "), {"mode": Mode.JOB}
        for words, request in (
            ("when asked ", Request.BUILD),
            ("when full refresh is asked ", Request.FULL_REFRESH),
        ):
            if rest.startswith(words):
                rest = rest.removeprefix(words)
                name = rest.removeprefix("test ").split()[0]
                is_test = name in self.world.graph.tests
                asked = self.world.graph.tests[name].about if is_test else (name,)
                options = {"requests": dict.fromkeys(asked, request)}
        if rest.startswith("selecting "):
            _, names, rest = rest.split(" ", 2)
            options["selection"] = names.split(",")
        head, _, message = rest.partition(": ")
        is_test = head.startswith("test ")
        node, action, reason = head.removeprefix("test ").split()
        plan = self.world.plan(**options)
        decision = (plan.tests if is_test else plan.decisions)[node]
        assert (decision.action.value, decision.reason.value, decision.message) == (action, reason, message), where

    def _full(self, rest: str, where: str) -> None:
        assert self.world.decision(rest.removeprefix("refresh ")).full_refresh, where

    def _no(self, rest: str, where: str) -> None:
        assert not self.world.decision(rest.removeprefix("full refresh ")).full_refresh, where

    def _eligible(self, rest: str, where: str) -> None:
        node, _, wait = rest.partition(" in ")
        assert self._decided(node).eligible_at == self.world.now + parse_duration(wait), where

    def _not(self, rest: str, where: str) -> None:
        assert self._decided(rest.removeprefix("eligible ")).eligible_at is None, where

    def _decided(self, name: str) -> Decision | TestDecision:
        plan = self.world.plan()
        return {**plan.decisions, **plan.tests}[name]

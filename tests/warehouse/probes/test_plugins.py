"""Probes of other packages, found through real entry points: a distribution on the path is one."""

from __future__ import annotations

import sys
from textwrap import dedent

import pytest

from dagster_sao.warehouse import ProbeKind, SourceProber

HEAD = """
    from dagster_sao.warehouse import Observation, ProbeKind, WarehouseBusyError, WarehouseError

    class Probe:
        kind = "stamps"
        def __init__(self, session): pass
        def claims(self, source): return source.name == "orders"
"""
FIXED = """
        def observe(self, sources, expired):
            for source in sources:
                yield source.unique_id, Observation("stamp-1", self.kind)
"""
ORDERS, OTHER = "plain.orders", "plain.odd"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package with a probe, as pip would: modules, and metadata with an entry point."""

    def install(name, code, factory="Probe"):
        site = tmp_path / f"site_{name}"
        metadata = site / f"acme_{name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[dagster_sao.probes]\n{name} = acme_{name}:{factory}\n")
        (site / f"acme_{name}.py").write_text(dedent(code))
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, f"acme_{name}", raising=False)

    return install


def test_an_installed_probe_answers_for_what_it_claims(shop, install):
    install("stamps", HEAD + FIXED)
    seen = shop.observe(ORDERS, OTHER)
    assert (seen[ORDERS].token, seen[ORDERS].kind) == ("stamp-1", "stamps")
    assert seen[OTHER].kind == ProbeKind.DUCKDB


def test_loaded_at_wins_over_an_installed_probe_and_that_over_an_opt_out(shop, install):
    install("stamps", HEAD.replace('source.name == "orders"', "True") + FIXED)
    seen = shop.observe("fields.exact", "plain.opted_out")
    assert (seen["fields.exact"].kind, seen["plain.opted_out"].kind) == (ProbeKind.FIELD, "stamps")


def test_installed_probes_are_asked_by_name(shop, install):
    install("b", HEAD + FIXED.replace("stamp-1", "of b"))
    install("a", HEAD + FIXED.replace("stamp-1", "of a"))
    assert shop.observe(ORDERS)[ORDERS].token == "of a"


def test_a_probe_for_another_adapter_stays_out(shop, install):
    install("stamps", HEAD + FIXED + "\n    def factory(session): return None", "factory")
    prober = SourceProber(shop.session())
    assert prober.problems == ()
    assert shop.observe(ORDERS, prober=prober)[ORDERS].kind == ProbeKind.DUCKDB


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("def Probe(session): raise ValueError('no licence, password=hunter2')", "no licence, password=***"),
        ("", "module 'acme_stamps' has no attribute 'Probe'"),
    ],
)
def test_a_probe_that_cannot_be_loaded_is_named_once_and_its_sources_are_looked_at_otherwise(
    shop, install, code, reason
):
    install("stamps", code)
    prober = SourceProber(shop.session())
    (problem,) = prober.problems
    assert problem.startswith(f"The probe 'stamps' of acme-stamps cannot be loaded: {reason}")
    assert shop.observe(ORDERS, prober=prober)[ORDERS].kind == ProbeKind.DUCKDB


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            "raise ValueError('the stamp office is closed')",
            "is handled by the probe 'stamps' of acme-stamps, which failed: the stamp office is closed. Repair or",
        ),
        (
            "yield sources[0].unique_id, 'a token'",
            "is handled by the probe 'stamps' of acme-stamps, which gave no answer. Repair or uninstall it",
        ),
        (
            "yield sources[0].unique_id, Observation(None, 'stamps')",
            "is handled by the probe 'stamps' of acme-stamps, which gave no answer. Repair or uninstall it",
        ),
        ("raise WarehouseError('The stamp office cannot be reached.')", "cannot be probed: The stamp office"),
    ],
)
def test_a_probe_that_fails_gives_its_sources_a_sentence_and_harms_no_other(shop, install, body, error):
    install(
        "stamps", f"{HEAD}        def observe(self, sources, expired):\n            {body}\n            yield from ()"
    )
    seen = shop.observe(ORDERS, OTHER, "fields.exact")
    assert seen[ORDERS].error.startswith(f"plain.orders (models/sources.yml) {error}")
    assert (seen[ORDERS].token, seen[OTHER].error, seen["fields.exact"].error) == (None, None, None)


def test_a_busy_warehouse_is_no_failure_of_the_probe(shop, install):
    install("stamps", HEAD + "        def observe(self, sources, expired): raise WarehouseBusyError('busy')")
    assert shop.observe(ORDERS) == {}


def test_a_probe_that_cannot_say_what_it_claims_claims_nothing(shop, install):
    install("stamps", HEAD.replace('source.name == "orders"', "1 / 0") + FIXED)
    assert shop.observe(ORDERS)[ORDERS].kind == ProbeKind.DUCKDB


def test_a_probe_may_leave_sources_for_the_next_tick_when_the_time_is_up(shop, install):
    install("stamps", HEAD + "        def observe(self, sources, expired): return iter(())")
    assert shop.observe(ORDERS, deadline=0) == {}

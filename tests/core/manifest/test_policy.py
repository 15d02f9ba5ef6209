"""What projects ask for, read from manifests as dbt really writes them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dagster_sao.core.errors import InvalidPolicyError
from dagster_sao.core.manifest.policy import (
    CodeChanges,
    OnCodeChange,
    Policy,
    SettingWarning,
    SourcePolicy,
    UpdatesOn,
    read_policy,
    read_source_policy,
    read_test_policy,
)
from tests.support.dbt_version import DBT_VERSION

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

POLICIES = {
    # freshness
    "unchanged": Policy(),
    "inherits": Policy(build_after=4 * HOUR, updates_on=UpdatesOn.ALL),
    "null_in_properties": Policy(),
    "null_in_config_block": Policy(),
    "beside": Policy(build_after=6 * HOUR, updates_on=UpdatesOn.ANY),
    "only_updates_on": Policy(updates_on=UpdatesOn.ALL),
    "replaces_whole": Policy(build_after=DAY, updates_on=UpdatesOn.ANY),
    "block_replaces_properties": Policy(build_after=HOUR / 2),
    # state
    "state_beside_freshness": Policy(build_after=4 * HOUR, updates_on=UpdatesOn.ALL),
    "lags": Policy(lag_tolerance=HOUR / 2, updates_on=UpdatesOn.ALL),
    "lags_less": Policy(lag_tolerance=HOUR / 12),
    "freshness_wins": Policy(build_after=2 * HOUR),
    # meta.dagster_sao: of three levels the most specific counts, whole, as dbt merges `meta`
    "of_folder": Policy(code_changes=CodeChanges.RESPECT_BUILD_AFTER, rebuild_every=DAY),
    "of_deeper_folder": Policy(rebuild_every=2 * DAY),
    "of_model": Policy(rebuild_every=3 * DAY, content_fingerprint=True),
    "of_properties": Policy(on_code_change=OnCodeChange.FULL_REFRESH),
    "expiring": Policy(expire_with_sources=True),
}

WARNINGS = {
    "of_model": (
        "of_model (models/settings/deep/of_model.sql): `meta.dagster_sao.content_fingerprint` is read but has no effect in"
        " this release."
    ),
    "beside": (
        "beside (models/waiting/beside.sql): `updates_on` is next to `build_after`, where dbt drops it; it is honoured"
        " here. Move it into `build_after`."
    ),
    "of_properties": (
        "of_properties (models/settings/deep/of_properties.sql): `meta.dagster_sao.rebuild_evry` is not a setting and has"
        " no effect. Did you mean `rebuild_every`?"
    ),
}


def node(manifest, name):
    return next(p for p in manifest["nodes"].values() if p["name"] == name and p["resource_type"] == "model")


@pytest.mark.parametrize("name", POLICIES)
def test_a_model_waits_as_it_asks(core_manifest, name):
    if name == "only_updates_on" and DBT_VERSION < (1, 11):
        pytest.skip("dbt 1.10 parses no `build_after` without a count")
    assert read_policy(node(core_manifest, name)).policy == POLICIES[name]


def test_only_what_should_be_written_otherwise_is_warned_of(core_manifest):
    warnings = {p["name"]: read_policy(p).warnings for p in core_manifest["nodes"].values()}
    assert {name: [str(w) for w in found] for name, found in warnings.items() if found} == {
        name: [w] for name, w in WARNINGS.items()
    }


def test_a_warning_keeps_the_node_and_the_file_apart_from_its_text():
    entry = {
        "name": "orders",
        "original_file_path": "models/EU (old): v1/orders.sql",
        "meta": {"dagster_sao": {"rebuild_evry": "1d"}},
    }
    text = "`meta.dagster_sao.rebuild_evry` is not a setting and has no effect. Did you mean `rebuild_every`?"
    assert read_policy(entry).warnings == (SettingWarning("orders", "models/EU (old): v1/orders.sql", text),)


def test_dbt_still_loses_what_we_read_from_unrendered_config(core_manifest):
    """When this fails, dbt has repaired it, and the reading of `unrendered_config` can go one day."""
    assert node(core_manifest, "null_in_properties")["config"]["freshness"] is not None
    assert "updates_on" not in node(core_manifest, "beside")["config"]["freshness"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orders", SourcePolicy(2 * HOUR, 12 * HOUR, DAY)),
        ("customers", SourcePolicy(HOUR / 6)),
        ("moved", SourcePolicy(2 * HOUR)),
    ],
)
def test_a_source_has_the_thresholds_and_the_interval_it_asks_for(core_manifest, name, expected):
    props = next(p for p in core_manifest["sources"].values() if p["name"] == name)
    assert read_source_policy(props) == (expected, ())


def test_an_untracked_source_counts_as_updated_at_most_every_hour_unless_it_asks_otherwise():
    policy, _ = read_source_policy({"name": "t", "source_name": "s"})
    assert policy.untracked_interval == HOUR


def test_a_source_may_trust_the_last_modified_time_of_its_warehouse():
    entry = {"name": "t", "source_name": "s", "original_file_path": "models/s.yml"}

    def trusting(value):
        return read_source_policy({**entry, "config": {"meta": {"dagster_sao": {"trust_metadata": value}}}})

    assert trusting(value=True) == (SourcePolicy(trust_metadata=True), ())
    with pytest.raises(
        InvalidPolicyError, match=r"^s\.t \(models/s\.yml\): `trust_metadata` is true or false, not 'yes'"
    ):
        trusting("yes")


# What dbt cannot produce today: written by other versions, or rejected by dbt's own parser one day.


def props(config, unrendered=None, **more):
    found = {"name": "orders", "original_file_path": "models/orders.sql", "config": config, **more}
    return found if unrendered is None else {**found, "unrendered_config": unrendered}


@pytest.mark.parametrize(
    ("config", "policy"),
    [
        pytest.param({}, Policy(), id="no freshness at all"),
        pytest.param({"freshness": None}, Policy(), id="freshness null"),
        pytest.param({"freshness": {}}, Policy(), id="freshness empty"),
        pytest.param({"freshness": {"build_after": None}}, Policy(), id="build_after null"),
        pytest.param(
            {"freshness": {"build_after": {"count": 0, "period": "hour"}}}, Policy(timedelta(0)), id="a count of 0"
        ),
        pytest.param(
            {"freshness": {"build_after": {"count": 2, "period": "day"}}}, Policy(2 * DAY), id="without updates_on"
        ),
        pytest.param({"state": None}, Policy(), id="state null"),
        pytest.param(
            {"freshness": None, "state": {"lag_tolerance": "1h 30m"}}, Policy(lag_tolerance=1.5 * HOUR), id="state only"
        ),
        pytest.param({"state": {"lag_tolerance": "2 days"}}, Policy(lag_tolerance=2 * DAY), id="a duration in words"),
        pytest.param(
            {"state": {"require_fresh_data_from": "all"}},
            Policy(updates_on=UpdatesOn.ALL),
            id="only fresh data from all",
        ),
        pytest.param({"meta": None}, Policy(), id="meta null"),
        pytest.param({"meta": {"dagster_sao": None}}, Policy(), id="settings null"),
        pytest.param(
            {"meta": {"dagster_sao": {"content_fingerprint": False, "rebuild_every": None}}},
            Policy(),
            id="settings off",
        ),
    ],
)
def test_manifests_without_unrendered_config_are_read_too(config, policy):
    assert read_policy(props(config)).policy == policy


def test_freshness_null_at_any_level_also_unsets_an_inherited_lag():
    config = {"state": {"lag_tolerance": "1h"}}
    assert read_policy(props(config, {"freshness": None, **config})).policy == Policy()


def test_freshness_that_was_never_written_is_no_null():
    config = {"freshness": {"build_after": {"count": 1, "period": "hour"}}}
    assert read_policy(props(config, {})).policy == Policy(HOUR)


def test_updates_on_without_any_build_after_is_honoured():
    reading = read_policy(props({"freshness": {}}, {"freshness": {"updates_on": "all"}}))
    assert reading.policy == Policy(updates_on=UpdatesOn.ALL)
    assert "Move it into `build_after`." in reading.warnings[0].text


def test_a_model_says_how_often_what_dbt_does_not_know_counts_as_updated():
    reading = read_policy(props({"meta": {"dagster_sao": {"untracked_interval": "5m"}}}))
    assert (reading.policy, reading.warnings) == (Policy(untracked_interval=HOUR / 12), ())


@pytest.mark.parametrize("read", [read_policy, read_source_policy, read_test_policy])
@pytest.mark.parametrize("nothing", ["0m", "0h 0m"])
def test_an_untracked_interval_of_nothing_is_refused(read, nothing):
    with pytest.raises(InvalidPolicyError) as error:
        read(props({"meta": {"dagster_sao": {"untracked_interval": nothing}}}))
    problem = "`untracked_interval` is 0, so it would be due without end; write a longer time"
    assert str(error.value) == f"orders (models/orders.sql): {problem}."


def test_meta_beside_config_counts_where_config_says_nothing():
    older = props({"meta": {}}, meta={"dagster_sao": {"rebuild_every": "1d"}})
    assert read_policy(older).policy == Policy(rebuild_every=DAY)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (
            {"freshness": {"build_after": {"count": -1, "period": "hour"}}},
            "`build_after.count` is -1, and a count cannot be negative.",
        ),
        (
            {"freshness": {"build_after": {"count": 1, "period": "week"}}},
            "`build_after` needs a whole `count` and a `period` of minute, hour or day, not 1 'week'.",
        ),
        (
            {"freshness": {"build_after": {"count": 1}}},
            "`build_after` needs a whole `count` and a `period` of minute, hour or day, not 1 None.",
        ),
        (
            {"freshness": {"build_after": {"count": 1.5, "period": "hour"}}},
            "`build_after` needs a whole `count` and a `period` of minute, hour or day, not 1.5 'hour'.",
        ),
        (
            {"freshness": {"build_after": {"count": 1, "period": "hour", "updates_on": "some"}}},
            "`updates_on` is `any` or `all`, not 'some'.",
        ),
        (
            {"state": {"lag_tolerance": "soon"}},
            "`lag_tolerance`: `soon` is not a duration: use a number and a unit, such as 30m, 12h, 1d or 1h 30m.",
        ),
        (
            {"state": {"require_fresh_data_from": "none"}},
            "`require_fresh_data_from` is `any` or `all`, not 'none'.",
        ),
        (
            {"meta": {"dagster_sao": {"rebuild_every": 3}}},
            "`rebuild_every`: `3` is not a duration: use a number and a unit, such as 30m, 12h, 1d or 1h 30m.",
        ),
        (
            {"meta": {"dagster_sao": {"rebuild_every": "0h"}}},
            "`rebuild_every` is 0h, so the model would be built without end; write a longer time.",
        ),
        (
            {"meta": {"dagster_sao": {"expire_with_sources": "1d"}}},
            "`expire_with_sources` is true or false, not '1d'.",
        ),
        (
            {"meta": {"dagster_sao": {"code_changes": "later"}}},
            "`code_changes` is `immediate` or `respect_build_after`, not 'later'.",
        ),
        (
            {"meta": {"dagster_sao": {"on_code_change": "drop"}}},
            "`on_code_change` is `build` or `full_refresh`, not 'drop'.",
        ),
        (
            {"meta": {"dagster_sao": {"content_fingerprint": "yes"}}},
            "`content_fingerprint` is true or false, not 'yes'.",
        ),
        (
            {"meta": {"dagster_sao": {"trusted_imports": ["torch", 1]}}},
            "`trusted_imports` is a list of names, not ['torch', 1].",
        ),
        ({"meta": {"dagster_sao": "on"}}, "`meta.dagster_sao` is a mapping of settings, not 'on'."),
        ({"freshness": "1h"}, "`freshness` is a mapping, not '1h'."),
        ({"freshness": {"build_after": "1h"}}, "`freshness.build_after` is a mapping, not '1h'."),
        ({"state": "1h"}, "`state` is a mapping, not '1h'."),
    ],
)
def test_a_setting_without_meaning_is_refused_with_node_and_file(config, problem):
    with pytest.raises(InvalidPolicyError) as error:
        read_policy(props(config))
    assert str(error.value) == f"orders (models/orders.sql): {problem}"


def test_a_source_is_named_with_its_source():
    with pytest.raises(InvalidPolicyError, match=r"^raw\.orders \(models/s\.yml\): `warn_after\.count` is -1"):
        read_source_policy(
            {
                "name": "orders",
                "source_name": "raw",
                "original_file_path": "models/s.yml",
                "freshness": {"warn_after": {"count": -1, "period": "day"}},
            }
        )


VALUES = [
    0, -1, 1, 3.5, 10**20, 10**5000, True, False, "", "x", "1d", "99999999999d", "9" * 5000 + "d", "-1d", "1.5h", "٣d", "²h",
    [], [1], {}, {"a": 1}, "null", float("nan"), float("inf"), b"x", None,
]  # fmt: skip
NAMES = [
    "code_changes", "rebuild_every", "expire_with_sources", "content_fingerprint", "untracked_interval", "on_code_change",
    "external_changes", "probe_every", "blocking", "trust_metadata", "trusted_imports", "unknown", 5, None, (1, 2),
]  # fmt: skip


def _configs(value):
    yield from ({"meta": {"dagster_sao": {name: value}}} for name in NAMES)
    yield from ({"meta": {"dagster_sao": {"unknown": value, name: value}}} for name in NAMES)
    yield from ({"meta": {"dagster_sao": value}}, {"meta": value}, {"freshness": value}, {"state": value})
    yield from ({"freshness": {name: value}} for name in ("build_after", "warn_after", "error_after"))
    for name in ("build_after", "warn_after", "error_after"):
        yield from ({"freshness": {name: {"count": value, "period": period}}} for period in ("day", [], None, 5))
        yield {"freshness": {name: {"count": 1, "period": value}}}
    yield {"freshness": {"build_after": {"count": 1, "period": "day", "updates_on": value}}}
    yield from ({"state": {name: value}} for name in ("lag_tolerance", "require_fresh_data_from"))


@pytest.mark.parametrize("value", VALUES, ids=[str(i) for i in range(len(VALUES))])
def test_every_value_of_a_setting_is_taken_or_refused_in_one_sentence(value):
    node = {"name": "orders", "original_file_path": "models/orders.yml"}
    refused = []
    for config in _configs(value):
        for read, props in ((read_policy, node), (read_source_policy, {**node, "source_name": "raw"})):
            try:
                read({**props, "config": config})
            except InvalidPolicyError as error:
                refused.append(str(error))
    for sentence in refused:
        assert sentence.startswith(("orders (models/orders.yml): ", "raw.orders (models/orders.yml): "))
        assert len(sentence) < 300
        assert "\n" not in sentence


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"meta": {"dagster_sao": {"rebuild_every": "99999999999d"}}}, "`rebuild_every`: `99999999999d` is too long: the longest duration is 36500d."),
        ({"freshness": {"build_after": {"count": 10**20, "period": "day"}}}, "`build_after` is 100000000000000000000 days: the longest time is 36500 days."),
    ],
)  # fmt: skip
def test_a_time_beyond_a_century_is_refused(config, problem):
    with pytest.raises(InvalidPolicyError) as caught:
        read_policy({"name": "orders", "original_file_path": "models/orders.yml", "config": config})
    assert str(caught.value) == f"orders (models/orders.yml): {problem}"


@pytest.mark.parametrize(
    ("chosen", "expected"), [(None, None), (False, "off"), ("off", "off"), ("reuse", "reuse"), ("all", "all")]
)
def test_a_test_may_choose_how_it_is_answered(chosen, expected):
    meta = {} if chosen is None else {"meta": {"dagster_sao": {"efficient_testing": chosen}}}
    policy, warnings = read_test_policy({"name": "ids", "original_file_path": "models/checks.yml", "config": meta})
    assert (policy.efficient_testing and policy.efficient_testing.value, warnings) == (expected, ())


@pytest.mark.parametrize("chosen", ["some", True, 1, ["all"]])
def test_a_wrong_way_to_answer_a_test_is_refused_with_test_and_file(chosen):
    meta = {"meta": {"dagster_sao": {"efficient_testing": chosen}}}
    with pytest.raises(
        InvalidPolicyError, match=r"^ids \(models/checks\.yml\): `efficient_testing` is `off` or "
    ) as error:
        read_test_policy({"name": "ids", "original_file_path": "models/checks.yml", "config": meta})
    assert str(error.value).count(".") == 2

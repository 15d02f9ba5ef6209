"""A user's own translator: any DagsterDbtTranslator works, keeps what it says, and stays as it is."""

from __future__ import annotations

import gc
import json
import weakref

import dagster as dg
import pytest
from dagster_dbt import DagsterDbtTranslator, DbtProject

from dagster_sao import StateAwareCondition, StateAwareDbtTranslator, build_state_aware_definitions, state_aware
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.core.state.state import Verdict, VerdictStatus
from dagster_sao.orchestration.automation.condition import project_of
from dagster_sao.orchestration.definitions.translator import SpecMemory, state_aware_spec
from dagster_sao.orchestration.private import dagster_internals
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.state.event_log import event_log_state
from dagster_sao.orchestration.state.verdicts import VerdictTable
from tests.core.manifests import manifest, model, source
from tests.orchestration.shops import NOW, definitions, load_project, project_in, shop_manifest, write_project

DAILY = dg.AutomationCondition.on_cron("@daily")


class Mine(DagsterDbtTranslator):
    """What people override."""

    def __init__(self) -> None:  # does not call dagster-dbt's
        self.prefix = "mart"

    def get_asset_key(self, props):
        return super().get_asset_key(props).with_prefix(self.prefix)

    def get_group_name(self, props):
        return "mine"

    def get_tags(self, props):
        return {"team": "sales"}

    def get_owners(self, props):
        return ["team:sales"]

    def get_metadata(self, props):
        return {**super().get_metadata(props), "cost": 3}

    def get_description(self, props):
        return "As I say."

    def get_automation_condition(self, props):
        return DAILY if props["name"] == "customers" else None


class MineByTheSpec(DagsterDbtTranslator):
    """The other way, which dagster-dbt documents for whole specs."""

    def get_asset_spec(self, manifest, unique_id, project):
        spec = super().get_asset_spec(manifest, unique_id, project)
        return spec.replace_attributes(key=spec.key.with_prefix("mart"), group_name="mine", tags={"team": "sales"})


@pytest.mark.parametrize("translator", [DagsterDbtTranslator(), Mine(), MineByTheSpec(), StateAwareDbtTranslator()])
def test_models_of_any_translator_are_state_aware(tmp_path, translator):
    defs = definitions(tmp_path, shop_manifest(), translator=translator)
    project, graph = project_in(defs), defs.resolve_asset_graph()
    for uid in ("model.shop.stg", "model.shop.orders"):
        found = graph.get(project.load().keys.by_unique_id[uid])
        assert isinstance(found.automation_condition, StateAwareCondition)
        assert found.code_version == project.code_version(uid)
        assert project_of(graph, found.key) is project
    with dg.DagsterInstance.ephemeral() as instance:  # Dagster's own evaluation, without our sensor
        assert dg.evaluate_automation_conditions(defs, instance).total_requested >= 1


def test_what_a_translator_says_is_kept(tmp_path):
    graph = definitions(tmp_path, shop_manifest(), translator=Mine()).resolve_asset_graph()
    orders = graph.get(dg.AssetKey(["mart", "orders"]))
    assert (orders.group_name, orders.owners, orders.description) == ("mine", ["team:sales"], "As I say.")
    assert orders.tags["team"] == "sales"
    assert orders.metadata["cost"] == 3
    assert graph.get(dg.AssetKey(["mart", "customers"])).automation_condition == DAILY
    assert graph.get(dg.AssetKey(["mart", "raw", "orders"])).group_name == "mine"


def test_a_condition_that_a_state_aware_translator_takes_away_stays_away(tmp_path):
    class Silent(StateAwareDbtTranslator):
        def get_asset_spec(self, manifest, unique_id, project):
            return super().get_asset_spec(manifest, unique_id, project).replace_attributes(automation_condition=None)

    graph = definitions(tmp_path, shop_manifest(), translator=Silent()).resolve_asset_graph()
    assert graph.get(dg.AssetKey("orders")).automation_condition is None


def test_a_spec_is_made_state_aware_once_and_anew_when_it_or_its_properties_are_others():
    memory, props = SpecMemory(), {"unique_id": "model.shop.orders"}
    one, other = dg.AssetSpec("orders"), dg.AssetSpec("orders", automation_condition=DAILY)
    made = memory.state_aware(one, props)
    assert made == state_aware_spec(one, props)
    assert memory.state_aware(one, props) is made
    assert memory.state_aware(other, props).automation_condition == DAILY
    assert memory.state_aware(one, props) == made
    source = {"unique_id": "source.shop.raw.orders", "freshness": {"warn_after": {"count": 1, "period": "hour"}}}
    late = {**source, "freshness": {"warn_after": {"count": 2, "period": "hour"}}}
    limits = [memory.state_aware(one, entry).metadata["dagster_sao/warn_after"] for entry in (source, late, source)]
    assert limits[0] == limits[2] != limits[1]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (Mine, "`translator` is Mine, which is not an instance of DagsterDbtTranslator. Give `translator=Mine()`."),
        (
            "mine",
            "`translator` is str, which is not an instance of DagsterDbtTranslator. Give an instance of a subclass of it.",
        ),
    ],
)
def test_what_is_not_a_translator_is_named(tmp_path, given, sentence):
    with pytest.raises(InvalidProjectError) as error:
        definitions(tmp_path, shop_manifest(), translator=given)
    assert str(error.value) == sentence


def test_two_projects_may_share_one_translator_which_stays_as_it_is(tmp_path):
    translator = Mine()
    before = dict(vars(translator))
    made = {}
    for name in ("one", "two"):
        world = manifest([model(f"m_{name}", "source.shop.raw.orders")], [source("raw", "orders")])
        write_project(tmp_path / name, world)
        (tmp_path / name / "dbt_project.yml").write_text(f"name: {name}\nprofile: shop\n")
        made[name] = build_state_aware_definitions(DbtProject(tmp_path / name), translator=translator)
    for name, defs in made.items():
        graph = defs.resolve_asset_graph()
        assert project_of(graph, dg.AssetKey(["mart", f"m_{name}"])) is project_in(defs)
    assert vars(translator) == before


class BySchema(DagsterDbtTranslator):
    """Keys of another kind than dagster-dbt's."""

    def get_asset_key(self, props):
        return dg.AssetKey(["warehouse", props["schema"], f"t_{props['name']}"])


@pytest.mark.parametrize(
    ("translator", "own_keys", "kept_as"),
    [
        (DagsterDbtTranslator(), {}, "shop"),
        (Mine(), {}, "mart/shop"),
        (MineByTheSpec(), {}, "mart/shop"),
        (Mine(), {"stg": ["staging", "stg"]}, "mart/shop"),
        (DagsterDbtTranslator(), {"stg": ["mart", "stg"]}, "shop"),
        (BySchema(), {}, "shop"),
    ],
)
def test_projects_of_one_name_with_other_asset_keys_have_states_of_their_own(tmp_path, translator, own_keys, kept_as):
    world = shop_manifest()
    for name, key in own_keys.items():
        world["nodes"][f"model.shop.{name}"]["meta"] = {"dagster": {"asset_key": key}}
    project = OrchestratedProject(write_project(tmp_path, world), translator)
    assert project.state_name == kept_as
    verdict = Verdict(VerdictStatus.PASS, NOW, "run 1", Fingerprint({"sql": "1"}), {"model.shop.orders": "v1"})
    with dg.DagsterInstance.ephemeral() as instance:
        VerdictTable(instance, "shop").write({"test.shop.t": verdict})
        known = event_log_state(instance, project).verdicts.read()
    assert known.keys() == ({"test.shop.t"} if kept_as == "shop" else set())


def test_asset_keys_follow_the_manifest_and_nothing_of_the_last_one_is_kept(tmp_path):
    project = load_project(tmp_path, shop_manifest())
    kept = []
    for n in range(5):
        meta = {"dagster": {"asset_key": [f"g{n}", "stg"]}}
        world = manifest([model("stg", meta=meta, config={"meta": meta})])
        project.dbt_project.manifest_path.write_text(json.dumps(world))
        loaded = project.load()
        assert loaded.keys.by_unique_id["model.shop.stg"].path == [f"g{n}", "stg"]
        kept.append(len(loaded.translator._resolved_specs))
    assert kept == [1] * 5


def test_what_dagster_dbt_keeps_in_a_translator_is_where_we_look(tmp_path):
    translator = DagsterDbtTranslator()
    before = set(vars(translator))
    world = shop_manifest()
    translator.get_asset_spec(world, "model.shop.orders", None)
    assert set(vars(translator)) - before == {"_resolved_specs", "_colliding_source_keys_cache"}
    assert set(vars(dagster_internals.fresh_translator(translator))) == before


def test_a_project_never_has_the_state_of_another_that_is_gone(tmp_path):
    dbt_project = write_project(tmp_path, shop_manifest())
    with dg.DagsterInstance.ephemeral() as instance:
        states = []
        for n in range(20):
            environment = "prod" if n % 2 else ""
            project = OrchestratedProject(dbt_project, StateAwareDbtTranslator(), environment=environment)
            state = event_log_state(instance, project)
            assert state is event_log_state(instance, project)
            assert state._environment == environment
            states.append(weakref.ref(state))
            del project, state
            gc.collect()
        assert not any(ref() for ref in states)


def test_the_condition_says_what_it_needs_where_there_is_no_project(tmp_path):
    @dg.asset(automation_condition=state_aware())
    def alone(): ...

    graph = dg.Definitions(assets=[alone]).resolve_asset_graph()
    with pytest.raises(
        dg.DagsterInvalidDefinitionError, match=r"state_aware\(\) is on alone, which is not a dbt model"
    ):
        project_of(graph, alone.key)

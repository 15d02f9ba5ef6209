"""The folders of dbt's invocations: the newest stay, and what is not ours is left alone."""

from __future__ import annotations

import os

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from dagster_sao.core.errors import InvalidPolicyError
from dagster_sao.orchestration.dbt.invocation_folders import MARK, mark_folder, remove_old_folders
from dagster_sao.orchestration.definitions.settings import StateAwareSettings

SUCCESS, FAILURE, STARTED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def write(target, instance, *statuses):
    """Write a folder for a run with each of the statuses (None: deleted since), oldest first."""
    for number, status in enumerate(statuses):
        run = create_run_for_test(instance, status=status or SUCCESS)
        folder = target / f"f{number}"
        mark_folder(folder, run.run_id)
        os.utime(folder / MARK, (number, number))
        if status is None:
            instance.delete_run(run.run_id)


def left(target):
    return sorted(path.name for path in target.iterdir())


def test_the_newest_folders_stay_and_as_many_of_runs_that_failed(tmp_path, instance):
    write(tmp_path, instance, FAILURE, FAILURE, SUCCESS, FAILURE, SUCCESS, SUCCESS, None, SUCCESS)
    remove_old_folders(tmp_path, instance, 2)
    assert left(tmp_path) == ["f1", "f3", "f6", "f7"]


def test_a_run_that_is_under_way_keeps_its_folders(tmp_path, instance):
    write(tmp_path, instance, STARTED, SUCCESS, STARTED)
    remove_old_folders(tmp_path, instance, 0)
    assert left(tmp_path) == ["f0", "f2"]


def test_what_no_run_of_ours_wrote_is_left_alone(tmp_path, instance):
    (tmp_path / "compiled").mkdir()
    (tmp_path / "0a1b2c3").mkdir()
    (tmp_path / "0a1b2c3" / MARK).write_text("{")
    write(tmp_path, instance, SUCCESS)
    remove_old_folders(tmp_path, instance, 0)
    assert left(tmp_path) == ["0a1b2c3", "compiled"]


@pytest.mark.parametrize("kept", [-1, 1001])
def test_a_number_out_of_range_is_refused(kept):
    with pytest.raises(InvalidPolicyError, match=f"`kept_dbt_folders` is {kept}: use a number from 0 to 1000."):
        StateAwareSettings(kept_dbt_folders=kept).check()

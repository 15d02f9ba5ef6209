"""A command of dbt starts with nothing between it and its run, and without an effect on other threads."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dagster._utils.interrupts import raise_interrupts_as
from dagster_dbt import DbtCliResource, DbtProject
from dagster_dbt.core import resource as dbt_resource
from packaging.version import Version

from dagster_sao.orchestration.private.dbt_commands import current_folder_kept, interrupts_afterwards
from dagster_sao.orchestration.project.parsing import prepare_manifest


class RunInterruptedError(Exception):
    """What Dagster raises in a run that is to end."""


def test_an_interrupt_waits_for_the_end_of_the_block():
    done = []
    with raise_interrupts_as(RunInterruptedError), pytest.raises(RunInterruptedError):  # noqa: PT012
        with interrupts_afterwards():
            signal.raise_signal(signal.SIGINT)
            done.append("in the block")
        done.append("after it")
    assert done == ["in the block"]


def test_an_error_in_the_block_is_told_beside_the_interrupt():
    with raise_interrupts_as(RunInterruptedError), pytest.raises(RunInterruptedError) as raised:
        _fail_while_interrupted()
    assert isinstance(raised.value.__context__, OSError)


def _fail_while_interrupted():
    with interrupts_afterwards():
        signal.raise_signal(signal.SIGINT)
        raise OSError


def test_without_an_interrupt_nothing_happens():
    before = signal.getsignal(signal.SIGINT)
    with interrupts_afterwards():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_a_parse_leaves_the_current_folder_as_it_is(tmp_path, monkeypatch):
    """A run that the code server launches meanwhile would not find its definitions."""
    project, scripts, elsewhere = tmp_path / "shop", tmp_path / "scripts", tmp_path / "elsewhere"
    for folder in (project, scripts, elsewhere):
        folder.mkdir()
    (project / "dbt_project.yml").write_text("{name: shop, profile: shop}")
    (project / "profiles.yml").write_text("shop: {target: dev, outputs: {dev: {type: duckdb, path: shop.duckdb}}}")
    (scripts / "dbt").write_text("#!/bin/sh\npwd > ran_in\n")
    (scripts / "dbt").chmod(0o755)
    monkeypatch.setenv("PATH", str(scripts), prepend=os.pathsep)
    monkeypatch.chdir(elsewhere)
    seen = []
    monkeypatch.setattr(DbtCliResource, "_cli_version", Version("1.11.0"))
    monkeypatch.setattr(DbtCliResource, "_initialize_dbt_core_adapter", lambda *_: seen.append(Path.cwd()))
    prepare_manifest(DbtProject(project), {})
    assert seen == [elsewhere]
    assert (project / "ran_in").read_text().strip() == str(project)


def test_other_threads_change_the_current_folder_as_ever(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def folder_while_a_command_starts():
        with dbt_resource.pushd("/"):
            return Path.cwd()

    with current_folder_kept(), ThreadPoolExecutor() as threads:
        assert folder_while_a_command_starts() == tmp_path
        assert threads.submit(folder_while_a_command_starts).result() == Path("/")
    assert folder_while_a_command_starts() == Path("/")
    assert Path.cwd() == tmp_path

"""The Dagster instance whose event log is the state."""

from __future__ import annotations

import os

import dagster as dg

from dagster_sao.api.errors import NoInstanceError
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.private.dagster_internals import schema_revisions


def open_instance() -> dg.DagsterInstance:
    """Return the instance in DAGSTER_HOME.

    Raises NoInstanceError when there is none, or when its database is from another version of Dagster.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        msg = (
            "There is no Dagster instance to read the state from: DAGSTER_HOME is not set."
            " Set it to the folder of your Dagster instance, such as `export DAGSTER_HOME=~/.dagster_home`."
        )
        raise NoInstanceError(msg)
    try:
        instance = dg.DagsterInstance.get()
    except Exception as error:
        msg = f"The Dagster instance in DAGSTER_HOME={home} cannot be opened: {sentence(error)}"
        raise NoInstanceError(msg) from error
    check_schema(instance)
    return instance


def check_schema(instance: dg.DagsterInstance) -> None:
    """Raise NoInstanceError when the instance's database has the schema of another version of Dagster."""
    try:
        found, wanted = schema_revisions(instance)
    except Exception as error:
        msg = f"The storage of the Dagster instance cannot be read: {sentence(error)}"
        raise NoInstanceError(msg) from error
    if found != wanted:
        msg = (
            f"The storage of the Dagster instance has the schema of another version of Dagster ({found}, not {wanted}):"
            f" run `dagster instance migrate`, or use the version that Dagster itself runs with (here it is {dg.__version__})."
        )
        raise NoInstanceError(msg)

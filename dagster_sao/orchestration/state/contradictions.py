"""A proof about a data test that the test itself contradicted: from then on, a project's runs prove nothing.

The note is about one version of this package. Another version, which may have mended the proof, begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import dagster as dg

from dagster_sao.orchestration.state.documents import Document
from dagster_sao.warehouse.redaction import masked


def stop_proofs(
    instance: dg.DagsterInstance, state_name: str, log_error: Callable[[str], None], test: str, proof: str
) -> None:
    """Let the runs of a project prove nothing more, and log why: `proof` about `test` was wrong."""
    log_error(masked(_contradiction(test, proof)))
    Document.CONTRADICTION.write(
        instance, state_name, {"test": test, "proof": proof, "version": version("dagster-sao")}
    )


def trust_proofs(instance: dg.DagsterInstance, state_name: str) -> None:
    """Let the runs of a project prove again."""
    if found_contradiction(instance, state_name):
        Document.CONTRADICTION.write(instance, state_name, {})


def found_contradiction(instance: dg.DagsterInstance, state_name: str) -> str:
    """Return the sentence about a proof of this version that a test contradicted; empty for none."""
    found = Document.CONTRADICTION.read(instance, state_name)
    if found.get("version") != version("dagster-sao"):
        return ""
    return _contradiction(str(found.get("test")), str(found.get("proof")))


def _contradiction(test: str, proof: str) -> str:
    """Return the sentence about a proof that a test contradicted."""
    return (
        f"{test} failed, although it was proven: {proof}. Please report this as a bug of dagster_sao. Until you install another"
        " version or run `dagster-sao tests --trust-proofs`, this project's tests are no longer proven, but run."
    )

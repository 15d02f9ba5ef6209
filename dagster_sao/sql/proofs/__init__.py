"""Proofs that the rows of a query have a property, from properties of the rows that it reads.

Pure: SQL text and known properties in, a proof or a reason against one out. A proof is about the rows that the query gives when
it runs. The caller has to know whether a table holds just these rows, and whether the known properties are true of the rows
that were read. SQL that is not understood proves nothing.
"""

from __future__ import annotations

from dagster_sao.sql.proofs.constraints import contract_types, enforced_properties
from dagster_sao.sql.proofs.manifest_tests import known_property, wanted_property
from dagster_sao.sql.proofs.properties import (
    AcceptedValues,
    Known,
    NotNull,
    NotProvable,
    Proof,
    Property,
    Relation,
    Relationship,
    Unique,
)
from dagster_sao.sql.proofs.query import QueryProofs

__all__ = [
    "AcceptedValues",
    "Known",
    "NotNull",
    "NotProvable",
    "Proof",
    "Property",
    "QueryProofs",
    "Relation",
    "Relationship",
    "Unique",
    "contract_types",
    "enforced_properties",
    "known_property",
    "wanted_property",
]

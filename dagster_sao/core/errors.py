"""Mistakes of a user. Each message is one sentence or two: the node, the file and the remedy."""

from __future__ import annotations


class DagsterSaoError(Exception):
    """Base of all errors that this package raises on purpose."""


class InvalidProjectError(DagsterSaoError):
    """The dbt project or its manifest cannot be used."""


class InvalidPolicyError(DagsterSaoError):
    """A freshness, state or `meta.dagster_sao` setting is invalid."""


class InvalidJobError(DagsterSaoError):
    """A job cannot be defined as it is written."""


class InvalidSelectionError(DagsterSaoError):
    """A selection of nodes is invalid in this project."""


class EmptySelectionError(InvalidSelectionError):
    """A selection that names no node of the project."""


class UnknownNodeError(DagsterSaoError):
    """There is no such node or source in the project."""

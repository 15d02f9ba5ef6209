"""The errors that you can catch. The message of each is a sentence or two: the node, its file and the remedy.

DagsterSaoError
├── InvalidProjectError           the dbt project or its manifest cannot be used
├── InvalidPolicyError            a `freshness`, `state` or `meta.dagster_sao` setting has no meaning
├── InvalidJobError               a job cannot be defined as it is written
├── InvalidSelectionError         a selection has no meaning in this project
│   └── EmptySelectionError       a selection matches no node
├── UnknownNodeError              the project has no such node or source
├── ConflictingOptionsError       options exclude each other, or one needs another
├── NoInstanceError               there is no Dagster instance with the state
├── DbtBuildFailed                a node, a test or the run failed; it carries the results
├── WarehouseError                the warehouse or its profile cannot be used
│   └── WarehouseBusyError        another process holds the database file
└── StatementError                one statement failed
└── StatementTimeoutError     one statement took too long
"""

from dagster_sao.api.errors import ConflictingOptionsError, DbtBuildFailed, NoInstanceError
from dagster_sao.core.errors import (
    DagsterSaoError,
    EmptySelectionError,
    InvalidJobError,
    InvalidPolicyError,
    InvalidProjectError,
    InvalidSelectionError,
    UnknownNodeError,
)
from dagster_sao.warehouse.errors import StatementError, StatementTimeoutError, WarehouseBusyError, WarehouseError

__all__ = [
    "ConflictingOptionsError",
    "DagsterSaoError",
    "DbtBuildFailed",
    "EmptySelectionError",
    "InvalidJobError",
    "InvalidPolicyError",
    "InvalidProjectError",
    "InvalidSelectionError",
    "NoInstanceError",
    "StatementError",
    "StatementTimeoutError",
    "UnknownNodeError",
    "WarehouseBusyError",
    "WarehouseError",
]

"""The dbt that the tests run with: `make test-dbt` has others than the usual one."""

from __future__ import annotations

from dbt.version import __version__

DBT_VERSION = tuple(int(number) for number in __version__.split(".")[:2])

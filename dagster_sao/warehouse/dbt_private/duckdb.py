"""The parts of a DuckDB target that differ from other databases: files, lakes, and a database that dbt shares.

Nothing here imports dbt: it reads and changes dbt-duckdb's credentials, and derives a class from its adapter.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MEMORY = ":memory:"
"""The path of a database in the memory of the process that opens it."""
_LAKE = "ducklake:"
# The prefixes of a catalog that is a file.
_CATALOG_SCHEMES = r"ducklake:((duckdb|sqlite):)?"


def make_read_only(credentials: Any, project_dir: Path) -> Path | None:
    """Make a DuckDB target read only; return its database file, None where it has none."""
    # A look is short. The session does the waiting, since it knows when to give up.
    credentials.retries = None
    credentials.keep_open = False
    settings = dict(credentials.settings or {})
    # `external_location: data/x.csv` is relative to the project, and this process may run anywhere.
    paths = [str(project_dir), *str(settings.get("file_search_path") or "").split(",")]
    credentials.settings = {**settings, "file_search_path": ",".join(path for path in paths if path)}
    for attached in credentials.attach or []:
        attached.path = _absolute(str(attached.path), project_dir)
        if not attached.type and _is_ours(attached.path) and "read_only" not in (attached.options or {}):
            attached.read_only = True
        if _is_lake(attached.path):
            attached.options = _with_absolute_data(attached.options or {}, project_dir)
    if credentials.remote or not _is_ours(credentials.path):
        return None
    credentials.path = _absolute(credentials.path, project_dir)
    if not credentials.is_motherduck:  # with an attached MotherDuck dbt-duckdb creates a schema on connecting
        credentials.config_options = {**(credentials.config_options or {}), "access_mode": "READ_ONLY"}
    return Path(credentials.path) if _is_local(credentials.path) else None


def place_of(credentials: Any, project_dir: Path) -> str | None:
    """Return the path of the target's database file or lake, None for a database on a server.

    Without options in a path such as `md:shop?motherduck_token=…`, which may change.
    """
    if credentials.remote:
        return None
    if not _is_ours(credentials.path):
        return str(credentials.path).partition("?")[0]
    path = _absolute(credentials.path, project_dir)
    return path if _is_lake(path) else str(Path(path).resolve())


def attached_files(credentials: Any) -> dict[str, Path]:
    """Return the local DuckDB files that a target attaches, by the name of the database in lower case."""
    return {
        str(attached.alias or credentials.path_derived_database_name(attached.path)).lower(): Path(attached.path)
        for attached in credentials.attach or []
        if attached.type in {None, credentials.type} and _is_local(str(attached.path))
    }


def ducklakes(credentials: Any) -> frozenset[str]:
    """Return the names of the databases that are lakes by their path, in lower case. Their catalog can be anywhere."""
    attached = {
        str(a.path): a.alias or credentials.path_derived_database_name(a.path) for a in credentials.attach or []
    }
    names = {**attached, str(credentials.path): credentials.database}
    return frozenset(str(name).lower() for path, name in names.items() if _is_lake(path))


def _with_absolute_data(options: Mapping[str, Any], project_dir: Path) -> dict[str, Any]:
    """Return the options of a lake with a path to its files that is right in this process, wherever it runs."""
    found = {name.lower(): value for name, value in options.items()}
    path = str(found.get("data_path", ""))
    if not path or not _is_local(path) or Path(path).is_absolute():
        return dict(options)
    # The catalog holds the relative path and refuses another one unless told that this is meant.
    return {**found, "data_path": f"{project_dir / path}/", "override_data_path": True}


def _is_ours(path: str) -> bool:
    """Return whether a database at such a path can be attached with `READ_ONLY`."""
    return _is_local(path) or _is_lake(path)


def _is_lake(path: str) -> bool:
    return path.lower().startswith(_LAKE)


def _is_local(path: str) -> bool:
    # `md:`, `ducklake:`, `s3://`, `postgres:…`; one letter before the colon is a Windows drive.
    return path != MEMORY and len(path.split(":", 1)[0]) in {1, len(path)}


def _absolute(path: str, project_dir: Path) -> str:
    scheme = re.match(_CATALOG_SCHEMES, path, re.IGNORECASE)
    file = path[scheme.end() :] if scheme else path
    return f"{scheme[0] if scheme else ''}{project_dir / file}" if _is_local(file) else path


def with_own_database(adapter_class: Any) -> Any:
    """Return dbt-duckdb's adapter with a database of its own.

    dbt-duckdb keeps the open database on the class of its connection manager, and opening another one closes it:
    on the shared class we would close the database of a dbt run in another thread of this process.
    """
    shared = adapter_class.ConnectionManager

    class PrivateConnectionManager(shared):  # type: ignore[misc, valid-type]  # a base known at run time only
        _ENV = None
        _LOCK = threading.RLock()

        @classmethod
        def get_credentials(cls, credentials: Any) -> Any:
            return _empty_if_missing(credentials)

        @classmethod
        def close_idle_database_of_dbt(cls) -> None:
            # After a dbt invocation in this process its read-write database stays open, and no other configuration
            # can be opened beside it. Without a handle nobody uses it, and dbt-duckdb opens it again when asked.
            database = shared._ENV
            if getattr(database, "handle_count", None) is None:
                return
            with database.lock:
                if database.handle_count == 0:
                    database.close()

        @classmethod
        def drop_database(cls) -> None:
            with cls._LOCK:
                if cls._ENV is not None:
                    cls._ENV.close()
                    cls._ENV = None

    return type("PrivateDuckDBAdapter", (adapter_class,), {"ConnectionManager": PrivateConnectionManager})


def _empty_if_missing(credentials: Any) -> Any:
    """Return credentials without the files that do not exist yet.

    DuckDB cannot open a missing file read-only. The first build creates it; until then no table exists, and sources
    in external files can be read all the same.
    """
    attached = credentials.attach or []
    there = [attachment for attachment in attached if not _is_missing(str(attachment.path))]
    if len(there) == len(attached) and not _is_missing(credentials.path):
        return credentials
    empty = copy.copy(credentials)
    empty.attach = there
    if _is_missing(credentials.path):
        empty.path = MEMORY
        empty.config_options = {k: v for k, v in (credentials.config_options or {}).items() if k != "access_mode"}
    return empty


def _is_missing(path: str) -> bool:
    file = re.sub(_CATALOG_SCHEMES, "", path, count=1, flags=re.IGNORECASE)
    return _is_local(file) and not Path(file).exists()

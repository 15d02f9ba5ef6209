"""A Dagster instance that keeps everything in PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from tests.support.postgres_server import PASSWORD, USER, Server

_CONFIG = """
storage: {{postgres: {{postgres_url: '{url}', should_autocreate_tables: {creates}}}}}
telemetry: {{enabled: false}}
"""


def write_instance(
    folder: Path, server: Server, database: str, *, user: str = USER, creates_tables: bool = True
) -> Path:
    """Make `folder` the home of an instance in a database of `server`, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    # SQLAlchemy 2.1 takes psycopg 3 where no driver is named, and dagster-postgres brings psycopg2.
    url = f"postgresql+psycopg2://{user}:{PASSWORD}@127.0.0.1:{server.port}/{database}"
    config = _CONFIG.format(url=url, creates=str(creates_tables).lower())
    (folder / "dagster.yaml").write_text(config, encoding="utf-8")
    return folder

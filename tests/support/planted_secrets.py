"""A dbt project with planted secrets that its queries, its models and its answers try to say."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import duckdb

PASSWORD, TOKEN, OF_DBT, HIDDEN = "hunter2-planted", "tok-planted-33", "env-planted-44", "row-planted-55"
SECRETS = (PASSWORD, TOKEN, OF_DBT, HIDDEN)
_FILES = {
    "dbt_project.yml": "{name: shop, version: 1.0.0, profile: shop, flags: {send_anonymous_usage_stats: false}}",
    "profiles.yml": f"""
shop:
  target: it
  outputs:
    it: {{type: duckdb, path: "{{{{ env_var('SHOP_FILE') }}}}", schema: shop, threads: 1}}
    prod: {{type: postgres, host: "postgresql://u:{TOKEN}@nohost", port: 1, user: u, password: {PASSWORD}, dbname: d, schema: s}}
""",
    "models/sources.yml": """
sources:
  - name: raw
    schema: raw
    tables:
      - {name: orders}
      - {name: hidden, config: {loaded_at_query: "select cast(name as timestamp) from raw.hidden"}}
      - {name: answer, identifier: hidden, config: {loaded_at_query: "select max(name) from raw.hidden"}}
""",
    "models/good.sql": "select * from {{ source('raw', 'orders') }}",
    "models/hidden.sql": "select * from {{ source('raw', 'hidden') }} cross join {{ source('raw', 'answer') }}",
    "models/says_password.sql": "{{ exceptions.raise_compiler_error('refused ' ~ env_var('SHOP_PASSWORD')) if execute }}",
    "models/says_url.sql": "select cast('postgresql://u:{{ env_var('SHOP_TOKEN') }}@nohost' as integer) as x",
    "models/says_secret.sql": "{% if execute %}{% do log('I say ' ~ env_var('SHOP_PLAIN'), info=True) %}{% endif %} select 1 as x",
}


def write_project(folder: Path) -> Path:
    """Write the project, and return its DuckDB file with one row in each source."""
    for name, text in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    file = folder / "w.duckdb"
    with closing(duckdb.connect(str(file))) as connection:
        connection.execute("create schema raw; create table raw.orders as select 1 as id")
        connection.execute(f"create table raw.hidden as select '{HIDDEN}' as name")
    return file


def environment_of(file: Path) -> dict[str, str]:
    """Return the variables that the project reads, for its DuckDB file."""
    return {
        "SHOP_FILE": str(file),
        "SHOP_PASSWORD": PASSWORD,
        "SHOP_TOKEN": TOKEN,
        "SHOP_PLAIN": OF_DBT,
        "DBT_ENV_SECRET_SHOP": OF_DBT,
    }


def secrets_in(folder: Path) -> list[tuple[str, str]]:
    """Return which files hold which secret."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found += [(str(path), secret) for secret in SECRETS if secret.encode() in content]
    return found

"""A planted password, a token in a URL and a `DBT_ENV_SECRET_*` are found in nothing that this package writes or shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from dagster_dbt import DbtProject

from dagster_sao import build_state_aware_definitions
from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.orchestration.events.door import SecretError, errors_masked
from dagster_sao.warehouse.redaction import learn

PASSWORD, TOKEN, OF_DBT, HIDDEN = "hunter2-planted", "tok-planted-33", "env-planted-44", "row-planted-55"
SECRETS = (PASSWORD, TOKEN, OF_DBT, HIDDEN)
FILES = {
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
    "models/says_url.sql": "select cast('postgresql://u:" + TOKEN + "@nohost' as integer) as x",
    "models/says_secret.sql": "{% if execute %}{% do log('I say ' ~ env_var('SHOP_PLAIN'), info=True) %}{% endif %} select 1 as x",
}


def _write(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    file = folder / "w.duckdb"
    with closing(duckdb.connect(str(file))) as connection:
        connection.execute("create schema raw; create table raw.orders as select 1 as id")
        connection.execute(f"create table raw.hidden as select '{HIDDEN}' as name")
    return file


def _leaks(folder: Path) -> list[tuple[str, str]]:
    """Return which files hold which secret, dbt's own files and the invocations' folders of dbt left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found += [(str(path), secret) for secret in SECRETS if secret.encode() in content]
    return found


@pytest.mark.slow
def test_no_secret_is_found_in_what_a_build_leaves_behind(tmp_path):
    project, home = tmp_path / "shop", tmp_path / "home"
    home.mkdir()
    file = _write(project)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "SHOP_FILE": str(file),
        "SHOP_PASSWORD": PASSWORD,
        "SHOP_PLAIN": OF_DBT,
        "DBT_ENV_SECRET_SHOP": OF_DBT,
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", "from dagster_sao.cli import main; main()", *arguments]
        done = subprocess.run(
            [*command, "--project-dir", str(project), "--profiles-dir", str(project)],
            env=environment, capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        return done.stdout + done.stderr

    told = [
        run("build", "-o", "json", "--vars", "{}"),
        run("build", "--debug", "--select", "says_password", "says_url"),
        run("sources", "--probe", "-o", "json"),
        run("doctor"),
    ]
    assert "refused ***" in told[0]
    assert "has a loaded_at_query that failed" in told[2], told[2]
    for text in told:
        assert not [secret for secret in SECRETS if secret in text], text
    assert json.loads((project / "target" / "run_results.json").read_text())["results"]
    leaks = [(path, secret) for path, secret in _leaks(home)]
    ours = [project / "target" / "run_results.json", *(project / "target").glob("**/dagster_sao*")]
    leaks += [(str(path), secret) for path in ours for secret in SECRETS if secret in path.read_text()]
    assert leaks == []


def test_a_profile_that_is_not_yaml_is_not_quoted(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("SHOP_FILE", str(_write(tmp_path)))
    broken = (
        f"shop:\n  target: it\n  outputs:\n    it:\n      type: postgres\n      password: {PASSWORD}\n     user: x\n"
    )
    (tmp_path / "profiles.yml").write_text(broken)
    with pytest.raises(InvalidProjectError, match="Syntax error near line 7") as caught:
        build_state_aware_definitions(DbtProject(tmp_path))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in "".join(capfd.readouterr())


def _fail_for_a_secret() -> None:
    error = RuntimeError("it failed")
    raise error from ValueError(PASSWORD)


def test_an_error_leaves_without_the_secret_of_its_cause():
    learn([PASSWORD])
    with pytest.raises(SecretError, match=r"RuntimeError: it failed") as caught, errors_masked():
        _fail_for_a_secret()
    assert caught.value.__cause__ is None


def test_a_failure_stays_a_failure_without_its_secret():
    learn([PASSWORD])
    with pytest.raises(dg.Failure) as caught, errors_masked():
        raise dg.Failure(f"cannot log in with {PASSWORD}", allow_retries=False)
    assert caught.value.description == "cannot log in with ***"
    assert not caught.value.allow_retries


def test_an_error_without_a_secret_leaves_as_it_is():
    with pytest.raises(KeyError), errors_masked():
        raise KeyError("orders")

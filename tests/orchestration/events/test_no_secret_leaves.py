"""A planted password, a token in a URL and a `DBT_ENV_SECRET_*` are found in nothing that this package writes or shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import dagster as dg
import pytest
from dagster_dbt import DbtProject

from dagster_sao import build_state_aware_definitions
from dagster_sao.core.code.evidence import Evidence
from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.orchestration.events import record_json
from dagster_sao.orchestration.events.door import SecretError, errors_masked
from dagster_sao.warehouse import redaction
from dagster_sao.warehouse.redaction import learn
from tests.support.planted_secrets import PASSWORD, SECRETS, environment_of, secrets_in, write_project


@pytest.mark.slow
def test_no_secret_is_found_in_what_a_build_leaves_behind(tmp_path):
    project, home = tmp_path / "shop", tmp_path / "home"
    home.mkdir()
    file = write_project(project)
    environment = {**os.environ, **environment_of(file), "DAGSTER_HOME": str(home)}

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
    leaks = [(path, secret) for path, secret in secrets_in(home)]
    ours = [project / "target" / "run_results.json", *(project / "target").glob("**/dagster_sao*")]
    leaks += [(str(path), secret) for path in ours for secret in SECRETS if secret in path.read_text()]
    assert leaks == []


def test_a_profile_that_is_not_yaml_is_not_quoted(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("SHOP_FILE", str(write_project(tmp_path)))
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


def test_a_record_names_what_was_read_without_its_secrets():
    learn([PASSWORD])
    evidence = Evidence(untracked=(f"read_csv(s3://{PASSWORD}@bucket/a.csv)",))
    assert record_json._evidence_to_json(evidence)["untracked"] == ["read_csv(s3://***@bucket/a.csv)"]


def test_an_error_without_a_secret_leaves_as_it_is(monkeypatch):
    # A short password that another test of this process has learnt may be a word of the traceback.
    monkeypatch.setattr(redaction, "_LEARNT", redaction._Learnt())
    with pytest.raises(KeyError), errors_masked():
        raise KeyError("no secret")

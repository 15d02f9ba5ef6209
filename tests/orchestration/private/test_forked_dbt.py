"""A dbt that a run forks is, to dbt itself and to dagster-dbt, what a new Python is."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dbt.cli.main
import psutil
import pytest
from dagster_dbt.core import dbt_cli_invocation

from dagster_sao.orchestration.private.forked_dbt import ForkedDbt, forked_dbt_commands
from dagster_sao.orchestration.private.new_python import path_of_new_python
from dagster_sao.warehouse.dbt_private.environment import dbt_version
from tests.support.polling import wait_for
from tests.support.processes import PROCESSES

SECONDS = 60
DBT = str(Path(sys.executable).with_name("dbt"))


def in_a_run(run, cli, *args):
    """Return what `run` returns in the process of a run, for which `cli`, if there is one, stands in for dbt's command line."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_in_a_run, args=(theirs, run, cli, args))
    process.start()
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(SECONDS) else "no answer"
        process.join(SECONDS)
        assert process.exitcode == 0, answer
    finally:
        process.kill()
    return answer


def _in_a_run(answers, run, cli, args):
    os.environ["PATH"] = os.pathsep.join([str(Path(DBT).parent), os.environ["PATH"]])
    if cli is not None:
        dbt.cli.main.cli = lambda prog_name: cli()
    before = dbt_cli_invocation.subprocess
    # As Dagster leaves it in a service that was started in the background.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # As that of a code server, which writes into a file or a pipe.
    sys.stdout.reconfigure(write_through=False)
    # As the code server's own files are among those of its runs.
    sys.path.insert(0, "/of/the/code/server")
    with forked_dbt_commands(path_of_new_python()):
        answers.send(run(*args))
    assert dbt_cli_invocation.subprocess is before


def start(executable=DBT, cwd=Path("/"), arguments=("build",), **env):
    """Start a command as dagster-dbt does."""
    return dbt_cli_invocation.subprocess.Popen(
        args=[executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            **{name: value for name, value in os.environ.items() if name.startswith(("PATH", "PYTHON", "LD_"))},
            **env,
        },
        cwd=cwd,
    )


def output_and_code(*args):
    process = start(*args, WORD="heard")
    with process.stdout:
        return process.stdout.read().decode(), process.wait(SECONDS)


def tell():
    print(
        sys.argv,
        Path.cwd(),
        os.environ.get("WORD"),
        os.environ.get("HOME"),
        sys.path[0],
        "/of/the/code/server" in sys.path,
    )
    print(psutil.Process().name(), file=sys.stderr)


@pytest.mark.parametrize("executable", [DBT, "dbt"])
def test_it_has_the_arguments_folder_variables_and_path_of_a_new_python(tmp_path, executable):
    said, code = in_a_run(output_and_code, tell, executable, tmp_path)
    assert said == f"{[DBT, 'build']} {tmp_path} heard None {Path(DBT).parent} False\ndbt\n"
    assert code == 0


def test_a_message_names_dbt(tmp_path):
    said, code = in_a_run(output_and_code, None, DBT, tmp_path, ("build", "--nonsense"))
    assert "Usage: dbt build" in said
    assert code == 2


def tell_of_the_file():
    print(os.environ.get("OF_THE_FILE"), os.environ.get("WORD"))


def test_it_reads_the_env_file_of_its_folder_as_its_version_of_dbt_does(tmp_path):
    (tmp_path / ".env").write_text("OF_THE_FILE=1\nWORD=of the file\n")
    of_the_file = "1" if dbt_version() >= (1, 12) else None
    assert in_a_run(output_and_code, tell_of_the_file, DBT, tmp_path) == (f"{of_the_file} heard\n", 0)


def fail():
    sys.exit(2)


def raise_error():
    raise ValueError("a mistake")


def say_why():
    sys.exit("why")


def close_at_the_end():
    atexit.register(print, "closed")
    sys.exit(1)


def print_and_be_killed():
    print("printed")
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_it_prints_is_told_at_once():
    assert in_a_run(output_and_code, print_and_be_killed) == ("printed\n", -signal.SIGKILL)


@pytest.mark.parametrize(
    ("cli", "said", "code"),
    [
        (fail, "", 2),
        (raise_error, "ValueError: a mistake\n", 1),
        (say_why, "why\n", 1),
        (close_at_the_end, "closed\n", 1),
    ],
)
def test_it_ends_as_a_new_python_does(cli, said, code):
    output, returned = in_a_run(output_and_code, cli)
    assert (output.endswith(said), returned) == (True, code)


def sleep():
    print("begun", flush=True)
    try:
        time.sleep(600)  # until the test ends it; a bound, should the test be killed
    except KeyboardInterrupt:
        sys.exit(3)


def begun():
    process = start()
    assert process.stdout.readline() == b"begun\n"
    return process


def ended_by(method, *args):
    process = begun()
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    getattr(process, method)(*args)
    assert process.wait(SECONDS) == process.poll() == process.returncode
    process.send_signal(signal.SIGKILL)  # reaches nobody
    return process.returncode


@pytest.mark.parametrize(
    ("method", "code"),
    [(("send_signal", signal.SIGINT), 3), (("terminate",), -signal.SIGTERM), (("kill",), -signal.SIGKILL)],
)
def test_a_signal_ends_it(method, code):
    assert in_a_run(ended_by, sleep, *method) == code


def two_at_once():
    first, second = begun(), begun()
    first.kill()
    codes = [first.wait(SECONDS), second.poll()]
    second.kill()
    return [*codes, second.wait(SECONDS)]


def test_two_at_once_are_told_apart():
    assert in_a_run(two_at_once, sleep) == [-signal.SIGKILL, None, -signal.SIGKILL]


def left_by_its_starter():
    process = begun()
    starter = psutil.Process(process.pid).parent()
    starter.kill()
    starter.wait(SECONDS)
    is_at_work = process.poll() is None
    try:
        start()
        refused = ""
    except OSError as error:
        refused = str(error)
    process.send_signal(signal.SIGINT)
    return is_at_work, refused, process.wait(SECONDS)


def test_it_is_watched_and_ended_also_when_the_process_it_was_forked_from_was_killed():
    assert in_a_run(left_by_its_starter, sleep) == (True, "the process that dbt is forked from has ended", 1)


def kinds_of_process(*environments):
    processes = [start(arguments=["--version"], **env) for env in environments]
    for process in processes:
        process.stdout.read()
        assert process.wait(SECONDS) == 0
    return [type(process) for process in processes]


def test_a_dbt_with_another_module_path_is_started_as_ever(tmp_path):
    environments = {"PYTHONUNBUFFERED": "1"}, {"PYTHONPATH": str(tmp_path)}
    assert in_a_run(kinds_of_process, None, *environments) == [ForkedDbt, subprocess.Popen]


def test_another_command_is_started_as_ever(tmp_path):
    other = tmp_path / "dbt"
    other.write_text("#!/bin/sh\necho other $1\n")
    other.chmod(0o755)
    assert in_a_run(output_and_code, fail, str(other)) == ("other build\n", 0)


def test_a_run_that_is_killed_leaves_a_dbt_that_its_starter_buries():
    """A zombie would look to the watchdog like a dbt at work."""
    ours, theirs = PROCESSES.Pipe()
    run = PROCESSES.Process(target=_in_a_run, args=(theirs, _tell_and_wait, sleep, (theirs,)))
    run.start()
    assert ours.poll(SECONDS)
    left = psutil.Process(ours.recv())
    run.kill()
    run.join(SECONDS)
    left.send_signal(signal.SIGINT)
    wait_for("dbt to be gone", lambda: not left.is_running(), seconds=SECONDS)


def _tell_and_wait(pids):
    pids.send(begun().pid)
    time.sleep(600)  # until the test kills it; the same

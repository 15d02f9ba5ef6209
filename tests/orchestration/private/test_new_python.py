"""A forked process has what a new Python has, and nothing of the process that it was forked from."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from types import SimpleNamespace

from dagster_sao.orchestration.private.new_python import as_new_python, path_of_new_python
from tests.support.processes import PROCESSES

SECONDS = 60


def in_a_fork(tell):
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=tell, args=[theirs])
    process.start()
    assert ours.poll(SECONDS)
    process.join(SECONDS)
    assert process.exitcode == 0
    return ours.recv()


def tell_environment(answers):
    os.environ["OF_THE_PROCESS_BEFORE"] = "1"
    with as_new_python({"ITS_OWN": "2"}):
        answers.send(dict(os.environ))


def test_it_has_its_own_environment_only():
    assert in_a_fork(tell_environment) == {"ITS_OWN": "2"}


def tell_time_zone(answers):
    with as_new_python({"TZ": "Asia/Tokyo"}):
        answers.send(time.localtime(0).tm_hour)


def test_it_has_the_time_zone_of_its_environment():
    assert in_a_fork(tell_time_zone) == 9


def tell_random_numbers(answers):
    seeded = []
    # Python's generator is seeded with the fork itself; NumPy's is not, and is not installed everywhere.
    sys.modules["numpy"] = SimpleNamespace(random=SimpleNamespace(seed=lambda *given: seeded.append(given)))
    with as_new_python(os.environ.copy()):
        answers.send((random.random(), seeded))


def test_it_has_random_numbers_of_its_own():
    (first, seeded), (second, _) = in_a_fork(tell_random_numbers), in_a_fork(tell_random_numbers)
    assert first != second
    assert seeded == [()]


def test_the_path_is_the_one_without_the_folder_of_the_code_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "of the code server")
    found = path_of_new_python()
    listed = subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.path)"], capture_output=True, text=True, check=True
    ).stdout
    assert str(["", *found]) == listed.strip()

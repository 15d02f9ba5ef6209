"""A file is written whole, or not at all."""

from __future__ import annotations

import json

import pytest

from dagster_sao.orchestration.files import write_json


def test_a_file_is_replaced(tmp_path):
    for value in (1, 2):
        write_json(tmp_path / "it.json", value)
    assert json.loads((tmp_path / "it.json").read_text()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["it.json"]


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "it.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_json(tmp_path / "it.json", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["it.json"]

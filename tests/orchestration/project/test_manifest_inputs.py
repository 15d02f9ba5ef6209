"""The inputs of a parse: which files they are, and that none changes unseen."""

from __future__ import annotations

import os
import time

import pytest

from dagster_sao.orchestration.project.manifest_inputs import FileReader, difference, env_vars_in

OLD = 1_600_000_000_000_000_000


@pytest.fixture
def root(tmp_path):
    """A project with a local package that is linked, one that is copied, and one from elsewhere."""
    files = {
        "shop/dbt_project.yml": "name: shop",
        "shop/profiles.yml": "shop: {}",
        "shop/packages.yml": "packages: [{local: ../linked}, {local: ../copied}]",
        "shop/models/a.sql": "select 1",
        "shop/functions/f.sql": "v * 2",
        "shop/dbt_packages/utils/dbt_project.yml": "{name: utils, macro-paths: [own]}",
        "shop/dbt_packages/utils/own/m.sql": "{% macro m() %}{% endmacro %}",
        "shop/dbt_packages/copied/dbt_project.yml": "name: copied",
        "copied/dbt_project.yml": "name: copied",
        "copied/macros/c.sql": "{% macro c() %}{% endmacro %}",
        "linked/dbt_project.yml": "name: linked",
        "linked/macros/l.sql": "{% macro l() %}{% endmacro %}",
        "shop/target/manifest.json": "{}",
        "shop/models/__pycache__/x.pyc": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "shop/dbt_packages/linked").symlink_to(tmp_path / "linked")
    return tmp_path / "shop"


def move(root):
    (root / "models/a.sql").rename(root / "models/b.sql")


def delete(root):
    (root / "models/a.sql").unlink()


def unpack_an_older_file(root):
    (root / "models/a.sql").write_text("select 2")
    os.utime(root / "models/a.sql", ns=(OLD, OLD))


def put_another_in_its_place(root):
    (root / "models/other.txt").rename(root / "models/a.sql")


def edit(name):
    def edited(root):
        path = root / name
        path.write_text(path.read_text() + " ")

    return edited


def add(name):
    def added(root):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")

    return added


CHANGES = [
    (move, "models/a.sql was removed"),
    (delete, "models/a.sql was removed"),
    (unpack_an_older_file, "models/a.sql was changed"),
    (put_another_in_its_place, "models/a.sql was changed"),
    (edit("functions/f.sql"), "functions/f.sql was changed"),
    (edit("profiles.yml"), "profiles.yml was changed"),
    (edit("dbt_packages/utils/own/m.sql"), "dbt_packages/utils/own/m.sql was changed"),
    (edit("../linked/macros/l.sql"), "dbt_packages/linked/macros/l.sql was changed"),
    (edit("../copied/macros/c.sql"), "../copied/macros/c.sql was changed"),
    (add("analyses/x.sql"), "analyses/x.sql was added"),
    (add("tests/t.sql"), "tests/t.sql was added"),
    (add("package-lock.yml"), "package-lock.yml was added"),
    (add("vars.yml"), "vars.yml was added"),
    (add(".dbtignore"), ".dbtignore was added"),
    (add("models/.hidden.sql"), "models/.hidden.sql was added"),
    (add("models/.swap"), ""),
    (add("target/x.sql"), ""),
    (add("models/__pycache__/y.pyc"), ""),
    (lambda root: os.utime(root / "models/a.sql"), ""),
]


@pytest.mark.parametrize(("change", "seen"), CHANGES)
def test_a_file_that_a_parse_reads_does_not_change_unseen(root, change, seen):
    (root / "models/other.txt").write_text("select 3")
    os.utime(root / "models/other.txt", ns=(OLD, OLD))
    if change is put_another_in_its_place:
        (root / "models/a.sql").write_text("select 1")
    reader = FileReader(root, root)
    before = {name: found for name, found in reader.look().digests.items() if name != "models/other.txt"}
    change(root)
    now = {name: found for name, found in reader.look().digests.items() if name != "models/other.txt"}
    assert difference(before, now) == seen


def test_a_file_that_is_put_back_is_what_it_was(root):
    reader = FileReader(root, root)
    before = reader.look()
    (root / "models/a.sql").write_text("select 2")
    changed = reader.look()
    (root / "models/a.sql").write_text("select 1")
    assert changed.code != before.code
    assert reader.look().code == before.code


def test_what_is_of_a_machine_is_not_code(root):
    reader = FileReader(root, root)
    before = reader.look()
    edit("profiles.yml")(root)
    now = reader.look()
    assert (now.digests != before.digests, now.code) == (True, before.code)


def test_a_computed_folder_counts_as_all_of_the_project(root):
    (root / "dbt_project.yml").write_text("{name: shop, model-paths: [\"{{ env_var('WHERE') }}\"]}")
    (root / "anywhere").mkdir()
    (root / "anywhere/x.sql").write_text("select 1")
    found = FileReader(root, root).look().digests
    assert "anywhere/x.sql" in found
    assert not [name for name in found if name.startswith("target/")]


@pytest.mark.parametrize("content", ["name: [", "- a list", "\xff"])
def test_a_project_that_cannot_be_read_is_still_looked_at(root, content):
    (root / "dbt_project.yml").write_text(content, encoding="latin-1")
    assert "models/a.sql" in FileReader(root, root).look().digests


def test_a_look_at_what_did_not_change_reads_nothing(root, monkeypatch):
    reader = FileReader(root, root)
    monkeypatch.setattr(time, "time_ns", lambda: time.clock_gettime_ns(time.CLOCK_REALTIME) + 10**10)
    before = reader.look()

    def fail(*_):
        raise AssertionError

    monkeypatch.setattr("dagster_sao.orchestration.project.manifest_inputs._read", fail)
    assert reader.look() is before


def test_a_file_that_was_just_written_is_read_again(root, monkeypatch):
    reader = FileReader(root, root)
    before, path = reader.look(), root / "models/a.sql"
    stamp = path.stat()
    path.write_text("select 2")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    # Within one tick of a coarse clock, the stat is the same.
    now = path.stat()
    listed = reader._list

    def same_stat(env_file):
        found = listed(env_file)
        file = found["models/a.sql"]
        assert file[1][0] == now.st_ino
        return {**found, "models/a.sql": (file[0], before.stats["models/a.sql"])}

    monkeypatch.setattr(reader, "_list", same_stat)
    assert difference(before.digests, reader.look().digests) == "models/a.sql was changed"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{{ env_var('A') }}", ("A",)),
        ('{{ env_var ( "A" , "x") }}', ("A",)),
        ("{{ env_var('A_' ~ target.name) }}", ("A_*",)),
        ("{{ env_var('A_' + name) }}", ("A_*",)),
        ("{{ env_var(name) }}", ("DBT_*",)),
        ("{{ env_var(var='A') }}", ("DBT_*",)),
        ("{{ env_var('a' | upper) }}", ("DBT_*",)),
        ("{% set read = env_var %}", ("DBT_*",)),
        ("{{ my_env_var('A') }}", ()),
        ("select 1", ()),
    ],
)
def test_the_environment_variables_of_a_template_are_known(text, names):
    assert env_vars_in(text.encode()) == names

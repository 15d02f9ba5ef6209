"""How many models are rebuilt needlessly after an edit that changes no rows, or only a few, beside an older version.

    python benchmarks/precision.py [PROJECT ...] [--before CHECKOUT] [--no-example] [--macro NAME]

On the example project, and on each dbt project whose folder is given: with its packages installed, a `profiles.yml` for DuckDB with
a relative path, and the tables of its sources in that file, which may be empty. Each version gets a copy, builds all of it with a
real dbt, incremental models twice, and records that. Then one file is edited at a time, the version says what it would build, and
the edit is taken back.
What cannot be built on DuckDB is left out.

The edits are made on the model with the median number of models below it, and on the macro that the most models reach,
or another one that is named.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._support import print_table
from benchmarks.tests_after_new_data import example

ROOT = Path(__file__).resolve().parents[1]
DBT = Path(sys.executable).with_name("dbt")
READ, UNREAD = "precision_is_read", "precision_is_not_read"
_NOT_COPIED = shutil.ignore_patterns("target", "logs", ".git", "__pycache__")
# Files of dbt itself and of adapters are nobody's to edit; those of packages are.
_OF_DBT = re.compile(r"^macro\.dbt(_\w+)?\.")
_OWN_PACKAGES = re.compile(r"^macro\.dbt_(utils|date|expectations|project_evaluator)\.")


@dataclass(frozen=True)
class Target:
    """What is edited in a project: the same in every version's copy."""

    model: str
    name: str
    sql: str
    """The model's file, as all files relative to the project."""
    properties: str
    macro: str
    macro_name: str
    macro_file: str
    needed: frozenset[str]
    """The model and the models below it."""

    def prepare(self, folder: Path) -> None:
        """Let the model read a variable that nothing else reads."""
        _rewrite(
            folder / self.sql, lambda text: f"select * from (\n{text}\n) as wrapped where 1 <= {{{{ var('{READ}') }}}}"
        )
        self._set_variable(folder, READ, 1)

    def comment(self, folder: Path) -> None:
        _rewrite(folder / self.sql, lambda text: f"-- precision\n{text}")

    def describe(self, folder: Path) -> None:
        self._edit_properties(folder, lambda entry: entry.update(description="Precision"))

    def tag(self, folder: Path) -> None:
        def add(entry: dict[str, Any]) -> None:
            config = entry.setdefault("config", {})
            tags = config.get("tags", [])
            config["tags"] = [*([tags] if isinstance(tags, str) else tags), "precision"]

        self._edit_properties(folder, add)

    def add_variable(self, folder: Path) -> None:
        self._set_variable(folder, UNREAD, 1)

    def change_variable(self, folder: Path) -> None:
        self._set_variable(folder, READ, 0)

    def comment_macro(self, folder: Path) -> None:
        self._edit_macro(folder, "#", "precision")

    def edit_macro(self, folder: Path) -> None:
        self._edit_macro(folder, "%", "set precision = 1")

    def _edit_macro(self, folder: Path, sign: str, added: str) -> None:
        opening = re.compile(rf"{{%-?\s*macro\s+{self.macro_name}\s*\(.*?\)\s*-?%}}", re.DOTALL)

        # The macro prints the same as before, blanks included.
        def with_tag(found: re.Match[str]) -> str:
            dash = "-" if found[0].endswith("-%}") else ""
            return f"{found[0]}{{{sign}{dash} {added} {dash}{sign}}}"

        def edit(text: str) -> str:
            edited, count = opening.subn(with_tag, text, count=1)
            assert count, f"{self.macro_file} has no macro {self.macro_name}"
            return edited

        _rewrite(folder / self.macro_file, edit)

    def _edit_properties(self, folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        def edit(document: dict[str, Any]) -> None:
            (entry,) = (entry for entry in document["models"] if entry["name"] == self.name)
            change(entry)

        _rewrite_yaml(folder / self.properties, edit)

    def _set_variable(self, folder: Path, name: str, value: int) -> None:
        _rewrite_yaml(
            folder / "dbt_project.yml", lambda document: document.setdefault("vars", {}).update({name: value})
        )


EDITS: Mapping[str, tuple[Callable[[Target, Path], None], bool]] = {
    "a comment in a model": (Target.comment, False),
    "a description": (Target.describe, False),
    "a tag": (Target.tag, False),
    "a new variable that nothing reads": (Target.add_variable, False),
    "another value of a variable that one model reads": (Target.change_variable, True),
    "a comment in a macro": (Target.comment_macro, False),
    "a macro, without an effect": (Target.edit_macro, False),
}
"""By name: the edit, and whether the model and what is below it must be built for it."""


class Version:
    """A checkout in a process of its own, on a copy of a project."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, str(ROOT / "benchmarks" / "_precision_worker.py"), str(checkout)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)

    def models(self, what: str) -> frozenset[str]:
        """Return the models that it has built, or would build."""
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return frozenset(uid for uid in json.loads(self._process.stdout.readline()) if uid.startswith("model."))

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def choose(folder: Path, macro_name: str) -> Target:
    """Return what to edit in a project: a table in the midst, and the macro of that name or that the most models reach."""
    subprocess.run([DBT, "--quiet", "parse", "--profiles-dir", "."], cwd=folder, check=True)
    manifest = json.loads((folder / "target" / "manifest.json").read_bytes())
    nodes, children = manifest["nodes"], manifest["child_map"]
    below = {
        uid: frozenset(found for found in _closure(children, children[uid]) if found.startswith("model."))
        for uid, node in nodes.items()
        if node["resource_type"] == "model" and node["config"]["materialized"] == "table" and node["patch_path"]
    }
    some = sorted((len(found), uid) for uid, found in below.items() if found)
    _, model = some[len(some) // 2]
    called = {uid: macro["depends_on"]["macros"] for uid, macro in manifest["macros"].items()}
    reached: dict[str, int] = {}
    for node in nodes.values():
        if node["resource_type"] == "model":
            for macro in _closure(called, node["depends_on"]["macros"]):
                reached[macro] = reached.get(macro, 0) + 1
    editable = [uid for uid in reached if _OWN_PACKAGES.match(uid) or not _OF_DBT.match(uid)]
    editable = [uid for uid in editable if macro_name in {"", manifest["macros"][uid]["name"]}]
    macro = max(editable, key=lambda uid: (reached[uid], uid))
    root = manifest["metadata"]["project_name"]
    node = nodes[model]
    package, path = node["patch_path"].split("://")
    return Target(
        model=model,
        name=node["name"],
        sql=_located(root, node["package_name"], node["original_file_path"]),
        properties=_located(root, package, path),
        macro=macro,
        macro_name=manifest["macros"][macro]["name"],
        macro_file=_located(
            root, manifest["macros"][macro]["package_name"], manifest["macros"][macro]["original_file_path"]
        ),
        needed=below[model] | {model},
    )


def measure(title: str, make: Callable[[Path], None], project_dir: str, before: Path | None, macro: str) -> None:
    """Measure one project, and print its table."""
    checkouts = [checkout for checkout in (ROOT, before) if checkout]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folders = [Path(name).resolve() / str(n) for n in range(len(checkouts))]
        target: Target | None = None
        versions = []
        for checkout, folder in zip(checkouts, folders, strict=True):
            make(folder)
            project = folder / project_dir
            target = target or choose(project, macro)
            target.prepare(project)
            versions.append(Version(checkout, project))
            stack.callback(versions[-1].end)
        assert target is not None
        built = [version.models("build") for version in versions]
        assert all(target.model in models for models in built), f"{target.model} cannot be built"
        # A job builds some of them each time, such as those that read an untracked source.
        always = [_due(version, target, None) & models for version, models in zip(versions, built, strict=True)]
        rows = [["nothing", *(str(len(due)) for due in always for _ in range(2))]]
        for what, (edit, is_needed) in EDITS.items():
            needed = target.needed if is_needed else frozenset()
            cells = [what]
            for version, models, due_anyway in zip(versions, built, always, strict=True):
                due = (_due(version, target, edit) & models) - due_anyway
                # What is below it may wait for a build_after of its own.
                assert not is_needed or target.model in due, f"{target.model} is not built for {what}"
                cells += [str(len(due)), str(len(due - needed))]
                print(f"{what}: {len(due)}, needlessly {sorted(due - needed)[:3]} …", file=sys.stderr)
            rows.append(cells)
    print_table(
        f"{title}: models rebuilt after an edit, of {len(built[0])}",
        ["edited", "rebuilt", "needlessly", *(["before: rebuilt", "needlessly"] if before else [])],
        rows,
        f"The model is {target.name}, with {len(target.needed) - 1} models below it; the macro is {target.macro}. What is due"
        " with nothing edited is not counted again.",
    )


def _due(version: Version, target: Target, edit: Callable[[Target, Path], None] | None) -> frozenset[str]:
    if edit is None:
        return version.models("plan")
    files = {version.folder / name for name in (target.sql, target.properties, target.macro_file, "dbt_project.yml")}
    originals = {path: path.read_bytes() for path in files}
    edit(target, version.folder)
    due = version.models("plan")
    for path, content in originals.items():
        if path.read_bytes() != content:
            path.write_bytes(content)
    return due


def _closure(edges: Mapping[str, Sequence[str]], start: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        uid = waiting.pop()
        if uid not in found:
            found.add(uid)
            waiting.extend(edges.get(uid, ()))
    return found


def _located(root: str, package: str, path: str) -> str:
    return path if package == root else f"dbt_packages/{package}/{path}"


def _rewrite(path: Path, edit: Callable[[str], str]) -> None:
    path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")


def _rewrite_yaml(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    def edited(text: str) -> str:
        document = yaml.safe_load(text)
        edit(document)
        return yaml.safe_dump(document, sort_keys=False)

    _rewrite(path, edited)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("projects", nargs="*", type=Path, metavar="PROJECT", help="the folder of a dbt project")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an older version, to be compared with")
    parser.add_argument("--macro", default="", metavar="NAME", help="the macro that is edited in the projects named")
    parser.add_argument("--no-example", action="store_true", help="leave the example project out")
    options = parser.parse_args()
    before = options.before.resolve() if options.before else None
    if not options.no_example:
        shop = example()
        measure(shop.title, shop.make, shop.project_dir, before, "")
    for project in options.projects:
        # Links to packages in the project stay links, so that an edit of a package is an edit of its folder.
        measure(
            project.resolve().name,
            lambda folder, project=project: shutil.copytree(project, folder, symlinks=True, ignore=_NOT_COPIED),
            ".",
            before,
            options.macro,
        )


if __name__ == "__main__":
    main()

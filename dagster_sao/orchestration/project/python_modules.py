"""The project's own Python modules that its Python models import: part of their code, and unknown to dbt."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from dagster_sao.core.code.versions import digest


class ImportedModules:
    """Finds the modules that Python code imports from given folders. Installed packages change with the environment only."""

    def __init__(self, folders: Callable[[], Sequence[Path]]) -> None:
        """Take a function that returns the folders. It is called when some code imports something."""
        self._folders = folders

    def digest(self, code: str) -> str:
        """Return a digest of all that `code` imports from the folders, directly or not; empty for nothing."""
        files = self._files(code)
        return (
            digest({name: path.read_text(encoding="utf-8", errors="replace") for name, path in sorted(files.items())})
            if files
            else ""
        )

    def _files(self, code: str) -> dict[str, Path]:
        """Return the files that are imported, by the name of the module and their place in it."""
        found: dict[str, Path] = {}
        todo = [*_imported_names(code)]
        seen = set(todo)
        while todo:
            name = todo.pop()
            for part, path in self._files_of(name):
                if part not in found:
                    found[part] = path
                    names = set(_imported_names(path.read_text(encoding="utf-8", errors="replace"))) - seen
                    seen |= names
                    todo += names
        return found

    def _files_of(self, name: str) -> Iterator[tuple[str, Path]]:
        spec = self._spec(name)
        if spec is None:
            return
        if spec.submodule_search_locations is not None:
            # Imports within a package are not followed: all of the package counts.
            for folder in spec.submodule_search_locations:
                for path in sorted(Path(folder).rglob("*.py")):
                    yield f"{name}/{path.relative_to(folder)}", path
        elif spec.origin is not None and spec.origin.endswith(".py"):
            yield name, Path(spec.origin)

    def _spec(self, name: str) -> ModuleSpec | None:
        try:
            return PathFinder.find_spec(name, [str(folder) for folder in self._folders()])
        except (ImportError, ValueError):
            return None


def _imported_names(code: str) -> Iterator[str]:
    """Yield the first names of the modules that code imports."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]

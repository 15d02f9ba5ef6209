"""The project's own Python modules that its Python models import: part of their code, and unknown to dbt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from dagster_sao.sql.python.imports import imported_modules


class ImportedModules:
    """Finds the modules that Python code imports from given folders. Installed packages change with the environment only."""

    def __init__(self, folders: Callable[[], Sequence[Path]]) -> None:
        """Take a function that returns the folders. It is called when some code imports something."""
        self._folders = folders

    def texts(self, code: str) -> Mapping[str, str]:
        """Return all that `code` imports from the folders, directly or not, by the name of the module and the place in it."""
        files = self._files(code)
        return {name: path.read_text(encoding="utf-8", errors="replace") for name, path in sorted(files.items())}

    def _files(self, code: str) -> dict[str, Path]:
        """Return the files that are imported, by the name of the module and their place in it."""
        found: dict[str, Path] = {}
        todo = [*imported_modules(code)]
        seen = set(todo)
        while todo:
            name = todo.pop()
            for part, path in self._files_of(name):
                if part not in found:
                    found[part] = path
                    names = set(imported_modules(path.read_text(encoding="utf-8", errors="replace"))) - seen
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

"""What a parse of a dbt project reads: files, by name and content, and values from outside of the files.

Which files these are is dbt's rule: https://docs.getdbt.com/reference/dbt_project.yml. Nothing here starts dbt or knows a
manifest. The content of a file is read once, and again only when the file's stat changes: inode, size and both times, so
that a file which was moved, renamed, unpacked or put back with an old modification time counts as what it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from dagster_sao.core.code.versions import digest
from dbt_dagster_sao.digests import SECRET_PREFIX

_PATHS = {
    "model-paths": ("models",),
    "macro-paths": ("macros",),
    "seed-paths": ("seeds",),
    "snapshot-paths": ("snapshots",),
    "test-paths": ("tests",),
    "analysis-paths": ("analyses",),
    "function-paths": ("functions",),
    "docs-paths": (),
}
"""The settings that name the folders of a project, with dbt's defaults."""
_PROJECT = "dbt_project.yml"
_PACKAGE_FILES = ("packages.yml", "dependencies.yml")
_LOCK_FILE = "package-lock.yml"
_ROOT_FILES = (_PROJECT, *_PACKAGE_FILES, _LOCK_FILE, "selectors.yml", "vars.yml", ".dbtignore")
_PROFILES, _ENV_FILE = "profiles.yml", ".env"
# Variables of a machine or a person, not of the project: they may differ between processes that share one state.
_NOT_CODE = frozenset({_PROFILES, _ENV_FILE, _LOCK_FILE, "selectors.yml"})
_SETTINGS = (_PROJECT, "vars.yml", _ENV_FILE, _PROFILES)
_READ_BY_DBT = (".sql", ".py", ".csv", ".md", ".yml", ".yaml")
_MAY_CALL_ENV_VAR = (".sql", ".py", ".md", ".yml", ".yaml")
_ENV_VAR = re.compile(rb"""\benv_var\b(?:\s*\(\s*(?:(['"])([\w.-]*)\1\s*(.?))?)?""", re.DOTALL)
_ANY_OF_DBTS = "DBT_*"
# Secrets do not get into a manifest; the others belong to a run, not to the project.
_NOT_READ = (SECRET_PREFIX, "DBT_ENV_CUSTOM_ENV_", "DBT_INDIRECT_SELECTION", "DBT_TARGET_PATH", "DBT_LOG_")
# The clock of a file system may stand still this long: a file that was just written is read again.
_CLOCK_NS = 2_000_000_000

FileStat = tuple[int, int, int, int]
"""A file's inode, size, and the times of its last modification and change in nanoseconds."""
_Found = dict[str, tuple[str, FileStat]]
"""Path and stat of each file by its name in the project."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """The content of a file."""

    digest: str
    env_vars: tuple[str, ...] = ()
    """The environment variables that its templates read; `PREFIX*` where a name is computed."""


@dataclass(frozen=True)
class InputFiles:
    """The files that a parse reads, by their name in the project."""

    contents: Mapping[str, FileContent]
    stats: Mapping[str, FileStat]
    settled: frozenset[str]
    """The files that did not change just now, so that their stat shows the next change."""
    installed: frozenset[str]
    """The files that `dbt deps` writes."""

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """The digest of each file."""
        return {name: content.digest for name, content in self.contents.items()}

    @cached_property
    def code(self) -> str:
        """The identity of this state of the project's code, the same on any machine."""
        return digest(sorted((name, found) for name, found in self.digests.items() if name not in _NOT_CODE))

    @cached_property
    def stamp(self) -> str:
        """The identity of the files of the project's code, another one after each write, also of the same content."""
        return digest(sorted((name, found) for name, found in self.stats.items() if name not in _NOT_CODE))

    @cached_property
    def settings(self) -> str:
        """The identity of what code consists of beside the manifest, in the project's files: variables, flags, the profile."""
        return digest(sorted((name, found) for name, found in self.digests.items() if name.endswith(_SETTINGS)))

    @cached_property
    def _env_vars(self) -> frozenset[str]:
        return frozenset(name for content in self.contents.values() for name in content.env_vars)

    def values(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment variables that templates read and that are set."""
        prefixes = tuple(name[:-1] for name in self._env_vars if name.endswith("*"))
        read = {name for name in environ if name in self._env_vars or name.startswith(prefixes)}
        return {name: environ[name] for name in sorted(read) if not name.startswith(_NOT_READ)}


def difference(parsed: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the first file that changed since a manifest was parsed, as the beginning of a sentence; empty for none.

    >>> difference({"a.sql": "1", "b.sql": "2"}, {"a.sql": "1", "c.sql": "2"})
    'b.sql was removed'
    """
    for name in sorted({*parsed, *now}):
        if name not in now:
            return f"{name} was removed"
        if name not in parsed:
            return f"{name} was added"
        if parsed[name] != now[name]:
            return f"{name} was changed"
    return ""


def env_vars_in(text: bytes) -> tuple[str, ...]:
    """Return the names of the environment variables that a template reads, `PREFIX*` for a name that it computes.

    >>> env_vars_in(b"{{ env_var('A', 'x') }} {{ env_var('B_' ~ target.name) }} {{ env_var(name) }}")
    ('A', 'B_*', 'DBT_*')
    """
    found = set()
    for match in _ENV_VAR.finditer(text):
        name, then = (match.group(2) or b"").decode(errors="replace"), match.group(3)
        if name and then in {b",", b")"}:
            found.add(name)
        else:
            found.add(f"{name}*" if name and then in {b"~", b"+"} else _ANY_OF_DBTS)
    return tuple(sorted(found))


class FileReader:
    """Reads the files of one project, each content once."""

    def __init__(self, project_dir: Path, profiles_dir: Path) -> None:
        """Read nothing yet."""
        self._root = os.path.abspath(project_dir)
        self._profiles = os.path.join(os.path.abspath(profiles_dir), _PROFILES)
        self._lock = threading.Lock()
        self._known: dict[str, tuple[FileStat, FileContent]] = {}
        self._settings: dict[str, Mapping[str, Any]] = {}
        self._last: tuple[_Found, InputFiles] | None = None

    def remember(self, contents: Mapping[str, tuple[FileStat, FileContent]]) -> None:
        """Take over what another process read, by name, of files that are still the same."""
        with self._lock:
            for name, (path, found) in self._list(None).items():
                if name in contents and contents[name][0] == found:
                    self._known.setdefault(path, contents[name])

    def look(self, env_file: Path | None = None) -> InputFiles:
        """Return the files as they are now. `env_file` is the `.env` that dbt reads, if any."""
        with self._lock:
            files = self._list(env_file)
            last, looked = self._last or ({}, None)
            if looked is not None and last == files and len(looked.settled) == len(files):
                return looked
            contents = {name: self._content(path, found) for name, (path, found) in files.items()}
            prefix = _installed_in(self._yaml(os.path.join(self._root, _PROJECT)))
            looked = InputFiles(
                contents,
                {name: found for name, (_, found) in files.items()},
                frozenset(name for name, (path, _) in files.items() if path in self._known),
                frozenset(name for name in files if name == _LOCK_FILE or name.startswith(prefix)),
            )
            self._last = files, looked
            return looked

    def _content(self, path: str, found: FileStat) -> FileContent:
        known = self._known.get(path)
        if known is not None and known[0] == found:
            return known[1]
        now = time.time_ns()
        content = _read(path)
        _, _, modified, changed = found
        if now - max(changed, min(modified, now)) > _CLOCK_NS:
            self._known[path] = found, content
        else:
            self._known.pop(path, None)
        return content

    def _list(self, env_file: Path | None) -> _Found:
        others = {_PROFILES: self._profiles, **({_ENV_FILE: str(env_file)} if env_file is not None else {})}
        others |= {name: os.path.join(self._root, name) for name in _ROOT_FILES}
        found = {name: (path, file) for name, path in others.items() if (file := _stat(path)) is not None}
        for prefix, root in ("", self._root), *self._packages():
            self._add_project(found, prefix, root)
        return found

    def _add_project(self, found: _Found, prefix: str, root: str) -> None:
        """Add the files of a project or package."""
        path = os.path.join(root, _PROJECT)
        if (file := _stat(path)) is not None:
            found[prefix + _PROJECT] = path, file
        settings = self._yaml(path)
        without = {os.path.normpath(os.path.join(root, name)) for name in _written_by_dbt(settings)}
        for folder in map(os.path.normpath, _folders(settings)):
            name = "" if folder == "." else f"{folder.replace(os.sep, '/')}/"
            _walk(os.path.join(root, folder) if name else root, prefix + name, without, found)

    def _packages(self) -> Iterator[tuple[str, str]]:
        """Yield the folders of packages with what their files are named by: installed ones, and the originals of copies."""
        prefix = _installed_in(self._yaml(os.path.join(self._root, _PROJECT)))
        installed = os.path.join(self._root, prefix)
        roots = set()
        for name in _names_in(installed):
            root = os.path.join(installed, name)
            if _stat(os.path.join(root, _PROJECT)) is not None:
                roots.add(os.path.realpath(root))
                yield f"{prefix}{name}/", root
        for file in _PACKAGE_FILES:
            for package in self._yaml(os.path.join(self._root, file)).get("packages") or ():
                local = package.get("local") if isinstance(package, Mapping) else None
                root = os.path.realpath(os.path.join(self._root, str(local)))
                if local is not None and root not in roots:
                    roots.add(root)
                    yield f"{str(local).rstrip('/')}/", root

    def _yaml(self, path: str) -> Mapping[str, Any]:
        """Return a file of settings; empty where it cannot be read, which dbt reports."""
        file = _stat(path)
        if file is None:
            return {}
        content = self._content(path, file).digest
        if content not in self._settings:
            try:
                loaded = yaml.safe_load(Path(path).read_bytes())
            except (OSError, yaml.YAMLError, UnicodeDecodeError):
                loaded = None
            self._settings[content] = loaded if isinstance(loaded, dict) else {}
        return self._settings[content]


def _installed_in(settings: Mapping[str, Any]) -> str:
    return f"{str(settings.get('packages-install-path') or 'dbt_packages').rstrip('/')}/"


def _folders(settings: Mapping[str, Any]) -> list[str]:
    """Return the folders that a project names; the whole project where a name is computed."""
    found: dict[str, None] = {}
    for setting, default in _PATHS.items():
        given = settings.get(setting) or default
        names = [given] if isinstance(given, str) else [str(name) for name in given]
        if any("{" in name for name in names):
            return ["."]
        found.update(dict.fromkeys(names))
    return list(found)


def _written_by_dbt(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the folders that dbt writes, for a project whose own folders hold them."""
    yield from ("target", "logs", ".git")
    for setting, default in (
        ("target-path", "target"),
        ("log-path", "logs"),
        ("packages-install-path", "dbt_packages"),
    ):
        yield str(settings.get(setting) or default)


def _walk(folder: str, prefix: str, without: Collection[str], found: _Found) -> None:
    """Add the files in a folder as dbt finds them: links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except OSError:
        return
    for entry in listed:
        name = entry.name
        if entry.is_dir(follow_symlinks=False):
            if name != "__pycache__" and entry.path not in without:
                _walk(entry.path, f"{prefix}{name}/", without, found)
        elif name[0] != "." or name.lower().endswith(_READ_BY_DBT):
            try:
                status = entry.stat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                file = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
                found[prefix + name] = entry.path, file


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _stat(path: str) -> FileStat | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(path: str) -> FileContent:
    hashed = hashlib.sha256()
    names: tuple[str, ...] = ()
    try:
        if path.lower().endswith(_MAY_CALL_ENV_VAR) or not path.lower().endswith(_READ_BY_DBT):
            text = Path(path).read_bytes()
            hashed.update(text)
            names = env_vars_in(text) if b"env_var" in text else ()
        else:
            with Path(path).open("rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    hashed.update(block)
    except OSError:
        return FileContent("unreadable")
    return FileContent(hashed.hexdigest()[:32], names)

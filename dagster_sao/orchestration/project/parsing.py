"""When a manifest is parsed anew, and how: with a note beside it of what the parse read.

A manifest does not record the files, variables and environment that it was made from. So a parse of ours writes them down:
names and digests, never values. A manifest that something else wrote has no such note. Where parsing is ours to do, it is then
parsed again; elsewhere it is compared by the times of the files.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dagster_dbt import DbtCliResource, DbtProject

from dagster_sao.core.code.variables import as_json
from dagster_sao.core.dbt_settings import setting
from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.orchestration.events.door import dbt_messages_masked, learn_secrets
from dagster_sao.orchestration.files import write_json
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.private.dagster_internals import prepare_arguments, using_dagster_dev
from dagster_sao.orchestration.private.dbt_commands import current_folder_kept, lean_resource
from dagster_sao.orchestration.project.dbt_arguments import has_own_manifest
from dagster_sao.orchestration.project.manifest_inputs import FileContent, FileReader, FileStat, InputFiles, difference
from dagster_sao.warehouse.dbt_private.environment import (
    dbt_packages,
    env_file,
    environment_of_dbt,
    is_imported_dbt,
)
from dagster_sao.warehouse.errors import WarehouseError
from dagster_sao.warehouse.profiles import default_target

_NOTE_FILE = "dagster_sao_manifest_inputs.json"
_LAYOUT = 1
_INVOCATION = re.compile(rb'"invocation_id"\s*:\s*"([^"]+)"')
_HEAD_BYTES = 1 << 16
# Settings of the environment that change the result of a parse of the same files.
_PARSER_SETTINGS = ("STATIC_PARSER", "USE_EXPERIMENTAL_PARSER")
_TARGET = "the target"


_Stamp = tuple[int, int, int]
_NOTES: dict[Path, tuple[tuple[_Stamp | None, _Stamp | None], ParseNote | None]] = {}


@dataclass(frozen=True, slots=True)
class ParseInputs:
    """What a parse would read now."""

    files: InputFiles
    values: Mapping[str, str]
    """Values from outside of the files, by their name in a sentence. Never written, logged or shown."""


@dataclass(frozen=True, slots=True)
class ParseNote:
    """What a manifest was parsed from."""

    invocation_id: str
    salt: str
    files: Mapping[str, str]
    """The digest of each file."""
    values: Mapping[str, str]
    """The salted digest of each value."""
    contents: Mapping[str, tuple[FileStat, FileContent]]
    """The content of files, which need not be read again while their stat is the same."""

    def difference(self, now: ParseInputs) -> str:
        """Return the first input that changed since the manifest was parsed, as the beginning of a sentence; empty if none did."""
        if found := difference(self.files, now.files.digests):
            return found
        values = {name: _salted(value, self.salt) for name, value in now.values.items()}
        name = next((name for name in sorted({*values, *self.values}) if values.get(name) != self.values.get(name)), "")
        return f"{name} was changed" if name else ""

    def is_of_target(self, target: str) -> bool:
        """Return whether the manifest was parsed for a target; empty for a parse that named none."""
        return self.values.get(_TARGET) == _salted(target, self.salt)


def current_inputs(dbt_project: DbtProject, variables: Mapping[str, Any]) -> ParseInputs:
    """Return the current inputs of a parse with the `--vars` of `variables`."""
    environ = environment_of_dbt(dbt_project.project_dir)
    files = input_files(dbt_project)
    values = {
        "--vars": json.dumps(as_json(variables)),
        _TARGET: _named_target(dbt_project, environ),
        "the profile": dbt_project.profile or setting("PROFILE", environ) or "",
        "the installed dbt": dbt_packages(),
        **{f"the setting {name}": setting(name, environ) or "" for name in _PARSER_SETTINGS},
        **{f"the environment variable {name}": value for name, value in files.values(environ).items()},
    }
    return ParseInputs(files, values)


def _named_target(dbt_project: DbtProject, environ: Mapping[str, str]) -> str:
    return dbt_project.target or setting("TARGET", environ) or ""


def refuse_other_target(dbt_project: DbtProject) -> None:
    """Raise InvalidProjectError when the manifest was parsed for another target: dbt would write other relations than it has.

    Nothing is known of a manifest that something else wrote.
    """
    note, named = read_note(dbt_project), _named_target(dbt_project, environment_of_dbt(dbt_project.project_dir))
    if note is None or note.is_of_target(named):
        return
    try:
        default = default_target(dbt_project.project_dir, dbt_project.profiles_dir, dbt_project.profile)
    except WarehouseError:  # the first use of the profile reports it
        return
    if named in {"", default} and (note.is_of_target("") or note.is_of_target(default)):
        return
    msg = (
        f"The manifest at {dbt_project.manifest_path} was parsed for another target than {named or default}, so it names other"
        " relations. Parse the project for this target. If several targets share the folder, give the DbtProject of each a"
        " `target_path` of its own."
    )
    raise InvalidProjectError(msg)


def input_files(dbt_project: DbtProject) -> InputFiles:
    """Return the files that a parse of the project reads."""
    reader = _reader(dbt_project.project_dir, dbt_project.profiles_dir)
    return reader.look(env_file(dbt_project.project_dir))


@cache
def _reader(project_dir: Path, profiles_dir: Path) -> FileReader:
    return FileReader(project_dir, profiles_dir)


def ensure_manifest(dbt_project: DbtProject, variables: Mapping[str, Any]) -> None:
    """Write the manifest when there is none and, where that is ours to do, when it was parsed from something else.

    Raises InvalidProjectError when dbt cannot parse the project.
    """
    if not dbt_project.manifest_path.exists() or (is_ours_to_parse(dbt_project) and is_stale(dbt_project, variables)):
        parse(dbt_project, variables)


def is_ours_to_parse(dbt_project: DbtProject) -> bool:
    """Return whether a manifest is written anew when it is stale: under `dagster dev`, and where nobody else writes it."""
    return using_dagster_dev() or has_own_manifest(dbt_project)


def is_stale(dbt_project: DbtProject, variables: Mapping[str, Any]) -> bool:
    """Return whether to parse the project anew: unless its manifest was certainly parsed from the current inputs."""
    note = read_note(dbt_project)
    return note is None or bool(note.difference(current_inputs(dbt_project, variables)))


def changed_since_parse(dbt_project: DbtProject, variables: Mapping[str, Any]) -> str:
    """Return what changed since the manifest was written, as the beginning of a sentence; empty where nothing is seen.

    For a manifest that something else wrote, only the times of the files can be compared.
    """
    note = read_note(dbt_project)
    if note is not None:
        return note.difference(current_inputs(dbt_project, variables))
    try:
        written = dbt_project.manifest_path.stat().st_mtime_ns
    except OSError:
        written = 0
    stats = input_files(dbt_project).stats
    name = next((name for name, (_, _, modified, _) in stats.items() if modified > written), "")
    return f"{name} was written" if name else ""


def prepare_manifest(dbt_project: DbtProject, variables: Mapping[str, Any]) -> None:
    """Install packages, write the manifest, and note what it was parsed from.

    Raises InvalidProjectError when dbt cannot parse the project.
    """
    before = _inputs_before(dbt_project, variables)
    learn_secrets(dbt_project, variables)
    try:
        with dbt_messages_masked(), current_folder_kept():
            dbt_project.preparer.prepare(dbt_project)
    except Exception as error:  # noqa: BLE001 (dagster-dbt's, and whatever the system has)
        msg = f"dbt cannot parse the project in {dbt_project.project_dir}: {sentence(error)}"
        raise InvalidProjectError(msg) from None  # Dagster would show the cause, with all that dbt quotes
    _write_note(dbt_project, before)


def parse(dbt_project: DbtProject, variables: Mapping[str, Any]) -> None:
    """Write the manifest. Packages are installed first, unless a deployment has done so.

    Raises InvalidProjectError when dbt cannot parse the project.
    """
    is_deployed = has_own_manifest(dbt_project) and not using_dagster_dev()
    if not is_deployed or dbt_project.has_uninstalled_deps:
        prepare_manifest(dbt_project, variables)
        return
    before = _inputs_before(dbt_project, variables)
    learn_secrets(dbt_project, variables)
    try:
        with dbt_messages_masked(), current_folder_kept():
            _run_parse(dbt_project)
    except Exception as error:  # noqa: BLE001 (as above)
        msg = f"dbt cannot parse the project in {dbt_project.project_dir} for this run: {sentence(error)}"
        raise InvalidProjectError(msg) from None  # Dagster would show the cause, with all that dbt quotes
    _write_note(dbt_project, before)


def _run_parse(dbt_project: DbtProject) -> None:
    given = DbtCliResource(dbt_project)
    dbt = lean_resource(given, is_imported=is_imported_dbt(given.dbt_executable), needs_adapter=False)
    dbt.cli(prepare_arguments(dbt_project), target_path=dbt_project.target_path).wait()


def read_note(dbt_project: DbtProject) -> ParseNote | None:
    """Return what the manifest was parsed from, None where something else wrote the manifest."""
    path = dbt_project.manifest_path.parent / _NOTE_FILE
    stamps = _stamp(path), _stamp(dbt_project.manifest_path)
    if path not in _NOTES or _NOTES[path][0] != stamps:
        note = _read_note(path, _invocation(dbt_project.manifest_path))
        if note is not None:
            _reader(dbt_project.project_dir, dbt_project.profiles_dir).remember(note.contents)
        _NOTES[path] = stamps, note
    return _NOTES[path][1]


def _read_note(path: Path, invocation_id: str) -> ParseNote | None:
    try:
        content = json.loads(path.read_bytes())
        if content["layout"] != _LAYOUT or content["invocation_id"] != invocation_id:
            return None
        files = {
            name: FileContent(found["digest"], tuple(found["env_vars"])) for name, found in content["files"].items()
        }
        stats = {name: tuple(found["stat"]) for name, found in content["files"].items() if found["stat"]}
        return ParseNote(
            invocation_id,
            content["salt"],
            {name: found.digest for name, found in files.items()},
            content["values"],
            {name: (found, files[name]) for name, found in stats.items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _inputs_before(dbt_project: DbtProject, variables: Mapping[str, Any]) -> ParseInputs:
    read_note(dbt_project)  # its notes about the files need not be read
    return current_inputs(dbt_project, variables)


def _write_note(dbt_project: DbtProject, before: ParseInputs) -> None:
    """Note the inputs of the manifest that was just written, as they were before the parse began."""
    invocation_id = _invocation(dbt_project.manifest_path)
    if not invocation_id:
        return
    # `dbt deps` is a part of the parse.
    after = input_files(dbt_project)
    files = {name: found for name, found in before.files.contents.items() if name not in before.files.installed}
    files |= {name: found for name, found in after.contents.items() if name in after.installed}
    salt = secrets.token_hex(16)
    content = {
        "layout": _LAYOUT,
        "invocation_id": invocation_id,
        "salt": salt,
        "values": {name: _salted(value, salt) for name, value in before.values.items()},
        "files": {
            name: {
                "digest": found.digest,
                "env_vars": found.env_vars,
                "stat": after.stats[name] if name in after.settled and after.contents[name] == found else None,
            }
            for name, found in files.items()
        },
    }
    # It only saves time.
    with suppress(OSError):
        write_json(dbt_project.manifest_path.parent / _NOTE_FILE, content)


def _invocation(manifest_path: Path) -> str:
    """Return a mark that no other manifest has. dbt writes its metadata first, so the rest is not read."""
    try:
        with manifest_path.open("rb") as file:
            found = _INVOCATION.search(file.read(_HEAD_BYTES))
    except OSError:
        return ""
    return found.group(1).decode() if found else ""


def _salted(value: str, salt: str) -> str:
    return hashlib.blake2b(value.encode(), key=salt.encode(), digest_size=16).hexdigest()


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns

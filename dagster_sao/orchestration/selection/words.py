"""Words of dbt's selection that mean exactly what a run builds and tests, and nothing beside it.

To dbt, a name also means everything in a folder of that name, and everything whose name begins with it up to a dot. So dbt's
own selector checks each word, and a longer one is used where a word means too much.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import PurePath
from typing import Any, Protocol

from dagster_sao.core.errors import InvalidSelectionError

# dbt splits at blanks and commas, and reads the others as methods, operators or wildcards.
_ODD = re.compile(r"[\s,:+@*?\[\]/\\]")
_ONE = "?"  # any one character
_BUILT = frozenset({"model", "seed", "snapshot", "test", "unit_test", "function"})
_FILES = (".sql", ".py", ".csv")
_NAMED = 3


# On Linux one argument of a command may hold 128 KiB, and dagster-dbt makes one of all that is selected.
LONGEST_SELECTION = 100_000
"""How many characters the selection of one dbt command may have."""


class Selector(Protocol):
    """Tells what words mean."""

    def select(self, words: Sequence[str], exclude: Sequence[str] = ()) -> set[str]:
        """Return the unique ids that words match, without those that words to exclude match."""


class SelectionWords:
    """The words for the nodes, tests and functions of one manifest."""

    def __init__(self, manifest: Mapping[str, Any], selector: Selector) -> None:
        """Take dbt's `selector` over the same `manifest`."""
        self._manifest = manifest
        self._selector = selector
        self._words: dict[str, str] = {}

    def word(self, uid: str) -> str:
        """Return the word that selects a node, test or function, and as little else as one word can."""
        if uid not in self._words:
            self._words[uid] = self._shortest(uid)
        return self._words[uid]

    def excluded(self, wanted: Collection[str], selected: str) -> list[str]:
        """Return the words to exclude so that those `selected`, with blanks between them, mean exactly what is wanted.

        A test that dbt cannot tell from one that is wanted may run with it. Raises InvalidSelectionError, which names
        them, where some nodes cannot be told apart, and where the words do not select what is wanted.
        """
        more = self._more(wanted, selected)
        # No word can exclude a test that has the name, file and package of a wanted one.
        exclude = [word for uid in sorted(more) if (word := self.word(uid)) and self._meant(word).isdisjoint(wanted)]
        if exclude:
            more = self._more(wanted, selected, exclude)
        if more := {uid for uid in more if uid not in self._twins(wanted)}:
            msg = (
                f"dbt's selection cannot tell {self._names(more)} from what this run builds: it would build or test more than"
                " was planned. Rename one of them or its file."
            )
            raise InvalidSelectionError(msg)
        return exclude

    def _more(self, wanted: Collection[str], selected: str, exclude: Sequence[str] = ()) -> set[str]:
        """Return what words select beyond what is wanted. Raises InvalidSelectionError where they do not select all of it."""
        found = self._selector.select([selected], exclude)
        if missing := set(wanted) - found:
            msg = f"dbt's selection does not find {self._names(missing)}. Rename it or its file."
            raise InvalidSelectionError(msg)
        return (found & self._built) - set(wanted)

    def _twins(self, tests: Collection[str]) -> set[str]:
        """Return the tests that have a word with one of `tests` in common."""
        return {
            twin for uid in tests if self._is_test(uid) for twin in self._meant(self.word(uid)) if self._is_test(twin)
        }

    def _shortest(self, uid: str) -> str:
        found: dict[str, set[str]] = {}
        for word in _forms(self._entry(uid)):
            found[word] = self._meant(word)
            if found[word] == {uid}:
                return word
        fitting = [word for word, meant in found.items() if uid in meant] or list(found)
        return min(fitting, key=lambda word: len(found[word]))

    def _meant(self, word: str) -> set[str]:
        return self._selector.select([word]) & self._built

    def _entry(self, uid: str) -> Mapping[str, Any]:
        kinds = ("nodes", "unit_tests", "functions")
        return next(self._manifest[kind][uid] for kind in kinds if uid in (self._manifest.get(kind) or {}))

    def _is_test(self, uid: str) -> bool:
        return str(self._entry(uid)["resource_type"]) in {"test", "unit_test"}

    @cached_property
    def _built(self) -> set[str]:
        """All that a dbt command builds or runs."""
        kinds = ("nodes", "unit_tests", "functions")
        entries = {uid: props for kind in kinds for uid, props in (self._manifest.get(kind) or {}).items()}
        return {uid for uid, props in entries.items() if _is_built(props)}

    def _names(self, unique_ids: Iterable[str]) -> str:
        names = sorted(unique_ids)
        more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
        return " and ".join(part for part in (", ".join(names[:_NAMED]), *more))


def _is_built(props: Mapping[str, Any]) -> bool:
    is_ephemeral = (props.get("config") or {}).get("materialized") == "ephemeral"
    # dbt Mesh adds the models of other projects without a file.
    return props["resource_type"] in _BUILT and not is_ephemeral and bool(props.get("original_file_path"))


def _forms(props: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words for an entry of the manifest, each of which means less than the one before it."""
    name = escaped(".".join(props["fqn"]))
    if name.lower().endswith(_FILES):
        name = f"fqn:{name}"  # dbt takes it for the name of a file otherwise
    kind, package = f"resource_type:{props['resource_type']}", f"package:{escaped(props['package_name'])}"
    yield name
    yield f"{name},{kind}"
    yield f"{name},{package},{kind}"
    file = PurePath(str(props.get("original_file_path") or "")).name
    yield f"{name},file:{escaped(file)},{package},{kind}"


def escaped(name: str) -> str:
    """Return a name with a wildcard in the place of each character that means something else in a selection.

    >>> escaped("shop.my folder.a,b")
    'shop.my?folder.a?b'
    """
    return _ODD.sub(_ONE, name)

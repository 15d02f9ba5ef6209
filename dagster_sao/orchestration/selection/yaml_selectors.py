"""dbt's yaml selectors as they are written: their names, their references to each other, and the methods they use.

Without dbt's own classes, so that it costs nothing, and so that a mistake is reported by name instead of as a failed parse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from dagster_sao.core.errors import InvalidSelectionError
from dagster_sao.core.suggestions import did_you_mean, nearest_names

FILE = "selectors.yml"
_REFERENCE = "selector"
_CHILDREN = re.compile(r"\+\d*\Z")
# `@`, `2+` and the method of one word of a selection, as dbt reads it.
_WORD = re.compile(r"\A@?(\d*\+)?((?P<method>[\w.]+):)?")


def no_selector(name: str, selectors: Iterable[str]) -> InvalidSelectionError:
    """Return the error about a selector that is not there, with the nearest names."""
    return InvalidSelectionError(
        f"There is no yaml selector '{name}' in {FILE}.{did_you_mean(nearest_names(name, selectors))}"
    )


def read_selectors(project_dir: Path, manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the definitions of yaml selectors by name, from `selectors.yml`.

    If the file has templates, or there is none, the definitions are from the manifest, where dbt has rendered them.
    Raises InvalidSelectionError when the file is not what dbt expects.
    """
    path = project_dir / FILE
    rendered = dict(manifest.get("selectors") or {})
    if not path.exists():
        return rendered
    try:
        text = path.read_text(encoding="utf-8")
        if "{{" in text or "{%" in text:
            return rendered
        content = yaml.safe_load(text) or {}
        return {str(selector["name"]): selector for selector in content.get("selectors") or []}
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        msg = f"{path} cannot be read as dbt's yaml selectors: {' '.join(str(error).split()) or type(error).__name__}."
        raise InvalidSelectionError(msg) from None


def default_selector(selectors: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the name of the selector that dbt uses where nothing is selected, empty where there is none."""
    return next((name for name, selector in selectors.items() if selector.get("default") is True), "")


def check_references(selectors: Mapping[str, Mapping[str, Any]], *, in_any_order: bool) -> None:
    """Raise InvalidSelectionError when a selector inherits from itself or from none.

    `in_any_order` is whether it may also inherit from one defined below it, and from all whose names match a pattern, as
    from dbt 1.12 on.
    """
    references: dict[str, list[str]] = {}
    for name, selector in selectors.items():
        references[name] = []
        for pattern in _references(selector.get("definition")):
            matched = _matching(pattern, selectors) if in_any_order else [pattern] * (pattern in selectors)
            if not matched:
                msg = f"The yaml selector '{name}' inherits from '{pattern}', which {FILE} does not define."
                raise InvalidSelectionError(msg)
            references[name] += matched
    known: set[str] = set()
    for name, names in references.items():
        _check_acyclic(name, references, (name,))
        for other in names:
            if other not in known and not in_any_order:
                msg = (
                    f"The yaml selector '{name}' inherits from '{other}', which {FILE} defines only below it."
                    f" dbt reads them in order: move '{other}' above '{name}'."
                )
                raise InvalidSelectionError(msg)
        known.add(name)


def methods_of_words(text: str) -> Iterator[str]:
    """Yield the methods that a selection in dbt's command line syntax names, such as `tag` of `+tag:nightly`."""
    for word in re.split(r"[\s,]+", text):
        match = _WORD.match(word)
        if match and match["method"]:
            yield match["method"].split(".", 1)[0]


def selectors_of_words(text: str, selectors: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the names of the yaml selectors that `selector:` finds in a selection in dbt's command line syntax.

    Raises InvalidSelectionError where it finds none.
    """
    found: set[str] = set()
    for pattern in _references_in_words(text):
        matched = _matching(pattern, selectors)
        if not matched:
            raise no_selector(pattern, selectors)
        found.update(matched)
    return found


def methods_of_selector(name: str, selectors: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the methods that a yaml selector uses, also through the ones that it inherits from."""
    return set(_methods(selectors[name].get("definition"), selectors, frozenset({name})))


def _check_acyclic(name: str, references: Mapping[str, list[str]], path: tuple[str, ...]) -> None:
    for other in references.get(name, ()):
        if other in path:
            cycle = " → ".join((*path[path.index(other) :], other))
            msg = f"The yaml selector '{other}' inherits from itself: {cycle}. Remove one of these from {FILE}."
            raise InvalidSelectionError(msg)
        _check_acyclic(other, references, (*path, other))


def _references(definition: object) -> Iterator[str]:
    for criterion in _criteria(definition):
        yield from _references_of(criterion)


def _references_of(criterion: str | Mapping[str, Any]) -> Iterator[str]:
    """Yield the names, or patterns of names, of the selectors that a criterion refers to."""
    if isinstance(criterion, str):
        yield from _references_in_words(criterion)
    elif criterion.get("method") == _REFERENCE:
        yield str(criterion.get("value"))
    elif _REFERENCE in criterion:
        yield str(criterion[_REFERENCE])


def _references_in_words(text: str) -> Iterator[str]:
    for word in re.split(r"[\s,]+", text):
        match = _WORD.match(word)
        if match and match["method"] == _REFERENCE:
            yield _CHILDREN.sub("", word[match.end() :])


def _matching(pattern: str, selectors: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [name for name in selectors if fnmatch(name, pattern)]


def _methods(definition: object, selectors: Mapping[str, Mapping[str, Any]], seen: AbstractSet[str]) -> Iterator[str]:
    for criterion in _criteria(definition):
        for name in (name for pattern in _references_of(criterion) for name in _matching(pattern, selectors)):
            if name not in seen:
                yield from _methods(selectors[name].get("definition"), selectors, seen | {name})
        if isinstance(criterion, str):
            yield from methods_of_words(criterion)
        elif criterion.get("method") == _REFERENCE:
            continue  # each dbt has it in a file
        elif "method" in criterion:
            yield str(criterion["method"]).split(".", 1)[0]
        else:
            yield from (str(key).split(".", 1)[0] for key in criterion)


def _criteria(definition: object) -> Iterator[str | Mapping[str, Any]]:
    """Yield the single criteria below a definition, however deep in unions, intersections and exclusions."""
    if isinstance(definition, str):
        yield definition
    elif isinstance(definition, Mapping):
        groups = [key for key in ("union", "intersection", "exclude") if isinstance(definition.get(key), list)]
        for group in groups:
            for part in definition[group]:
                yield from _criteria(part)
        rest = {key: value for key, value in definition.items() if key not in groups}
        if rest:
            yield rest

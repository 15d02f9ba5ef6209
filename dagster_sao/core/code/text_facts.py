"""Facts about single texts (templates, macros, SQL), computed once and cached by the content of the text."""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from collections.abc import Set as AbstractSet

from dagster_sao.core.code.versions import digest
from dagster_sao.sql.compiled_sql import relations_in_template
from dagster_sao.sql.jinja_reads import JinjaReads, jinja_reads
from dagster_sao.sql.normal_form import macro_form, may_select_star, normal_form
from dagster_sao.sql.python.code import inputs_of_python
from dagster_sao.sql.python.libraries import libraries_of_python
from dagster_sao.sql.volatility import is_volatile


class TextFacts:
    """Facts about texts in one SQL dialect."""

    def __init__(self, dialect: str, cache: MutableMapping[str, str] | None = None) -> None:
        """Keep the facts in `cache`, which may outlive this object but not these rules; None: in memory only."""
        self._dialect = dialect
        self._cache = cache if cache is not None else {}
        self._known_reads: dict[str, JinjaReads] = {}

    def reads(self, template: str) -> JinjaReads:
        """Return what a template may read and which macros it may call."""
        if template not in self._known_reads:
            values, names = json.loads(self._cached("reads", template, _reads_to_json))
            self._known_reads[template] = JinjaReads(frozenset((kind, name) for kind, name in values), frozenset(names))
        return self._known_reads[template]

    def template_form(self, template: str, overridden: AbstractSet[str]) -> str:
        """Return the normal form of a SQL template. `overridden` are the functions of dbt that the project replaces."""
        what = " ".join(["sql", *sorted(overridden)])
        return self._cached(what, template, lambda text: normal_form(text, self._dialect, overridden=overridden))

    def compiled_form(self, sql: str) -> str:
        """Return the normal form of compiled SQL."""
        return self._cached("compiled", sql, lambda text: normal_form(text, self._dialect, is_template=False))

    def macro_form(self, body: str) -> str:
        """Return the normal form of a macro's definition."""
        return self._cached("macro", body, macro_form)

    def is_volatile(self, text: str) -> bool:
        """Return whether a text mentions the time, a random value or a sequence."""
        return self._cached("volatile", text, lambda text: "1" if is_volatile(text) else "") == "1"

    def selects_star(self, template: str) -> bool:
        """Return whether a SQL template may select `*`."""
        return self._cached("star", template, lambda text: "1" if may_select_star(text, self._dialect) else "") == "1"

    def relations(self, template: str) -> list[str]:
        """Return the relations and files that a SQL template names without `ref` and `source`."""
        return self._labels("relations", template, lambda text: sorted(relations_in_template(text, self._dialect)))

    def python_inputs(self, code: str) -> list[str]:
        """Return what a Python model reads beside `dbt.ref` and `dbt.source`."""
        return self._labels("python inputs", code, lambda text: inputs_of_python(text, self._dialect))

    def python_libraries(self, code: str) -> list[str]:
        """Return the libraries that Python code imports and that may read anything."""
        return self._labels("python libraries", code, libraries_of_python)

    def _labels(self, what: str, text: str, find: Callable[[str], list[str]]) -> list[str]:
        labels: list[str] = json.loads(self._cached(what, text, lambda text: json.dumps(find(text))))
        return labels

    def _cached(self, what: str, text: str, compute: Callable[[str], str]) -> str:
        key = digest([what, self._dialect, text])
        if key not in self._cache:
            self._cache[key] = compute(text)
        return self._cache[key]


def _reads_to_json(template: str) -> str:
    reads = jinja_reads(template)
    return json.dumps([sorted(reads.values), sorted(reads.names)])

"""Histories that once broke a promise, or that chance seldom makes. `test_histories.py` says which suite replays which."""

from __future__ import annotations

from collections.abc import Mapping

from tests.histories.kinds import FILES, SEED_COLUMNS
from tests.histories.steps import History

REGRESSIONS: dict[str, History] = {
    "a run that was terminated and deleted is asked for again": [("terminate", 1), ("cycle",), ("delete run",)],
    "new rows pass through views": [("insert", "plain"), ("cycle",)],
    "a state that is restored is news": [
        ("insert", "events"),
        ("insert", "ledger"),
        ("cycle",),
        ("delete", "events"),
        ("delete", "ledger"),
        ("cycle",),
    ],
    "a broken model is left alone for longer and longer": [
        ("spoil value",),
        *[("cycle",), ("advance", 6)] * 5,
        *[("cycle",), ("advance", 61)] * 4,
    ],
    "a failed test holds back the children until it is repaired": [
        ("duplicate id",),
        ("cycle",),
        ("advance", 30),
        ("cycle",),
        ("deduplicate",),
        ("cycle",),
    ],
    "a window is kept": [("insert", "events"), ("cycle",), ("advance", 61), ("cycle",), ("advance", 30), ("cycle",)],
    "rows that land while a run builds are not lost": [
        ("insert", "plain"),
        ("meanwhile", "before dbt", ("insert", "plain")),
        ("cycle",),
        ("insert", "people"),
        ("meanwhile", "before events", ("insert", "people")),
        ("insert", "ledger"),
        ("cycle",),
    ],
    "dbt dies in the midst of a build": [("edit", "stg_events", "column"), ("crash", "run", 17), ("cycle",)],
    "a run dies after dbt ended": [("edit macro", "factor", "published"), ("crash", "events", 4), ("cycle",)],
    "what a run is building is not asked for again": [
        ("insert", "plain"),
        ("freshness",),
        ("automation",),
        ("insert", "plain"),
        ("freshness",),
        ("automation",),
        ("run", "oldest"),
    ],
    "a macro is code": [("cycle",), ("edit macro", "factor", "published"), ("cycle",)],
    "a variable is code": [("cycle",), ("edit var", "scale", "published"), ("cycle",)],
    "dbt builds code that is not published and then taken back": [
        ("edit", "t_people", "column"),
        ("insert", "people"),
        ("cycle",),
        ("edit", "t_people", "repair"),
    ],
    "changes of all parents add up": [
        ("insert", "ledger"),
        ("cycle",),
        ("update", "plain"),
        ("cycle",),
        ("insert", "events"),
    ],
    "files that are newer than the manifest are no change at every look": [
        ("cycle",),
        ("edit", "eph_people", "column"),
        ("insert", "people"),
        ("cycle",),
        ("cycle",),
        ("cycle",),
    ],
    "code whose test failed is taken back": [
        ("cycle",),
        ("edit rows", "double", "published"),
        ("cycle",),
        ("edit rows", "single", "published"),
        ("cycle",),
    ],
    "what a run by hand was interrupted in is built": [
        ("settle",),
        ("materialize", ["t_window"]),
        ("crash", "events", 9),
        ("materialize", ["t_window"]),
        ("freshness",),
        ("settle",),
    ],
    "a run that dies is not repeated at once for what it built itself": [
        ("crash", "events", 16),
        ("update", "events"),
        ("wipe", "stg_events"),
        ("cycle",),
    ],
    "code that was built but not recorded is taken back": [
        ("cycle",),
        ("edit", "t_people", "column", "published"),
        ("crash", "events", 1),
        ("cycle",),
        ("edit", "t_people", "repair", "published"),
        ("cycle",),
    ],
    "a child that was built by hand on rows that failed a test follows their repair": [
        ("duplicate id",),
        ("cycle",),
        ("materialize", ["t_census"]),
        ("deduplicate",),
        ("cycle",),
    ],
    "a job of a child alone builds nothing on rows that failed a test": [
        ("duplicate id",),
        ("cycle",),
        ("insert", "ledger"),
        ("job", ["t_census", "t_clock"]),
        ("deduplicate",),
    ],
    "a test of two models waits for what holds its data": [
        ("cycle",),
        ("advance", 125),
        ("meanwhile", "before dbt", ("spoil sign",)),
        ("cycle",),
        ("restart",),
        ("cycle",),
        ("restart",),
    ],
    "rows that break a test while dbt runs are tested": [
        ("insert", "plain"),
        ("elsewhere", ("spoil group",)),
        ("cycle",),
        ("repair groups",),
        ("elsewhere", ("spoil amount",)),
        ("cycle",),
    ],
    "a verdict outlives its run": [
        ("spoil amount",),
        ("cycle",),
        ("delete run",),
        ("restart",),
        ("job", ["t_windowed"]),
        ("repair amounts",),
    ],
    "an edited test is run on what is reused, and what it held is built": [
        ("duplicate id",),
        ("cycle",),
        ("edit test", "severity", "published"),
        ("cycle",),
        ("edit test", "unit", "published"),
        ("insert", "events"),
        ("cycle",),
        ("edit test", "unit", "published"),
        ("edit test", "add", "published"),
        ("job", []),
    ],
    "a test that is edited there and back shows its own answer": [
        ("edit test", "values", "published"),
        ("settle",),
        ("edit test", "values", "published"),
    ],
    "what a terminated run was building waits and is built": [
        ("insert", "plain"),
        ("terminate", 9),
        ("cycle",),
        ("cycle",),
        ("advance", 6),
        ("cycle",),
    ],
    "a run that failed and is executed again builds what failed": [
        ("spoil value",),
        ("cycle",),
        ("repair values",),
        ("execute again",),
        ("cycle",),
    ],
    "a failure counts though the clock was set back since the build before": [
        ("insert", "plain"),
        ("cycle",),
        ("set back", 60),
        ("spoil value",),
        ("cycle",),
        ("cycle",),
        ("advance", 6),
    ],
    "a build ends a failure from before the clock was set back": [
        ("spoil value",),
        ("cycle",),
        ("set back", 60),
        ("repair values",),
        ("cycle",),
        ("cycle",),
    ],
}

OF_KINDS: Mapping[str, Mapping[str, History]] = {
    "a DuckDB file that is put back from a copy": {
        "what an older copy of the database holds is built again": [
            ("copy database",),
            ("insert", "plain"),
            ("edit", "t_windowed", "column", "published"),
            ("cycle",),
            ("put back",),
        ],
    },
    "views that somebody replaces": {
        "a view that somebody replaced is created anew": [("replace view", "stg_plain"), ("advance", 61), ("cycle",)],
        "what was built from a replaced view is built again": [
            ("replace view", "stg_plain"),
            ("materialize", ["t_totals"]),
            ("advance", 61),
            ("cycle",),
        ],
    },
    "values read under a computed name": {
        "a variable whose name is put together is code": [("turn", "computed", "published"), ("cycle",)],
        "a variable that is read under another name of var is code": [("turn", "alias", "published"), ("cycle",)],
        "a macro that another macro is given is code": [("turn", "called", "published"), ("cycle",)],
    },
    "macros called only while dbt executes": {
        "a macro that is called under execute is code": [
            ("turn", "under_execute", "published"),
            ("cycle",),
            ("turn", "executed", "published"),
            ("cycle",),
        ],
    },
    "an environment variable that a macro reads": {
        "an environment variable whose name a macro is given is code": [("environment", "published"), ("cycle",)],
    },
    "meta, tags and description that SQL reads": {
        "meta that SQL reads is code": [("turn", "meta", "published"), ("cycle",)],
        "tags that SQL reads are code": [("turn", "tag", "published"), ("cycle",)],
        "a description that SQL reads is code": [("turn", "description", "published"), ("cycle",)],
    },
    "variables on dbt's command line": {
        "a variable of the command line is code": [("command line", 2), ("cycle",), ("command line", 3), ("cycle",)],
        "a variable that leaves the command line is code": [("command line", 2), ("cycle",), ("command line", 0)],
    },
    "overridden macros of dbt": {
        "a macro that overrides dbt's own is code": [("turn", "override", "published"), ("cycle",)],
    },
    "hooks, their macros and variables": {
        "a macro of a hook is code": [("turn", "hook", "published"), ("cycle",)],
        "a variable of a hook's macro is code": [("turn", "hook_variable", "published"), ("cycle",)],
        "a variable of a seed's hook is code": [("turn", "seed_variable", "published"), ("cycle",)],
    },
    "significant parentheses and line breaks": {
        "parentheses that change what is subtracted are code": [("turn", "parentheses", "published"), ("cycle",)],
        "parentheses around a macro are code": [("turn", "around_macro", "published"), ("cycle",)],
        "a line break after a comment in a macro is code": [("turn", "line_break", "published"), ("cycle",)],
    },
    "macros of a local package": {
        "a macro of a local package is code": [("turn", "package", "published"), ("cycle",)],
        "a macro of a local package that was built, not published and taken back": [
            ("turn", "package"),
            ("materialize", ["t_written"]),
            ("turn back", "package"),
        ],
    },
    "data that comes and goes during a build": {
        "rows of a table that were there only while dbt ran": [("insert", "plain"), ("blip", "plain"), ("cycle",)],
        "rows of a file that were there only while dbt ran": [("insert", "people"), ("blip", "people"), ("cycle",)],
        "rows with timestamps that were there only while dbt ran": [
            ("insert", "ledger"),
            ("insert", "events"),
            ("blip", "ledger"),
            ("cycle",),
        ],
        "rows of a seed that were there only while dbt ran": [("edit seed", "published"), ("blip seed",), ("cycle",)],
    },
    "columns that a view is bound to": {
        "a view with a star follows a new column": [("alter columns", "add"), ("cycle",)],
        "a view with a star follows another type": [
            ("alter columns", "add"),
            ("cycle",),
            ("alter columns", "retype"),
            ("cycle",),
        ],
        "a view with a star can be read without a column": [
            ("alter columns", "add"),
            ("cycle",),
            ("alter columns", "drop"),
            ("cycle",),
        ],
    },
    "values that look alike": {
        "a list of nothing is not a list of one NULL": [("alter nested", "items"), ("cycle",)],
        "a struct of NULLs is not NULL": [("alter nested", "shape"), ("cycle",)],
    },
    "relations that dbt does not know": {
        "a hard-coded relation is read again after its interval, and all that was made from it": [
            ("change beside", "loose"),
            ("cycle",),
        ],
    },
    "questions that SQL asks while it is rendered": {
        "a table that comes is another answer of the catalog": [("change parts",), ("cycle",)],
        "a row that is asked for is another answer": [("change beside", "options"), ("cycle",)],
    },
    "relations that two models take turns to write": {
        "what dbt wrote by a newer project is not in the relation of the plan": [
            ("turn", "pair"),
            ("materialize", ["t_second"]),
            ("turn", "pair"),
            ("environment", "published"),
        ],
        "what dbt read by a newer project is not the relation of the plan": [
            ("turn", "pair"),
            ("materialize", ["t_pair"]),
            ("turn", "pair"),
            ("environment", "published"),
        ],
        "a model whose alias another had in the meantime": [
            ("turn", "pair", "published"),
            ("materialize", ["t_first"]),
            ("turn", "pair", "published"),
            ("cycle",),
        ],
    },
    "failures whose run is deleted": {
        "code that was built but not recorded is taken back after its run is deleted": [
            ("cycle",),
            ("edit", "t_people", "column", "published"),
            ("crash", "events", 1),
            ("cycle",),
            ("delete run",),
            ("edit", "t_people", "repair", "published"),
            ("restart",),
            ("cycle",),
        ],
        "a failure outlives its run": [
            ("spoil value",),
            ("cycle",),
            ("delete run",),
            ("restart",),
            ("insert", "plain"),
            ("cycle",),
            ("repair values",),
        ],
    },
    "tables that read themselves": {
        "a table that reads itself is new for its children when it is built": [("materialize", ["t_this"]), ("cycle",)],
    },
    SEED_COLUMNS: {
        "a seed gets the columns that its file has": [
            ("edit seed columns", "published"),
            ("cycle",),
            ("edit seed", "published"),
            ("cycle",),
            ("edit seed columns", "published"),
        ],
    },
    FILES: {
        "a file that is moved is the same code": [("move", "away"), ("cycle",)],
        "a file that is deleted and comes back with other code": [
            ("move", "delete"),
            ("cycle",),
            ("turn", "moved"),
            ("move", "back"),
            ("cycle",),
        ],
        "a file of a local package": [("turn", "package"), ("settle",)],
        "an older file in the place of one": [("put in place", "published"), ("cycle",)],
        "an older file in the place of one, built and taken back before it is published": [
            ("put in place",),
            ("materialize", ["t_moved"]),
            ("turn back", "moved"),
        ],
    },
}
"""By kind (`kinds.py`) and promise."""

REGRESSIONS.update({promise: history for known in OF_KINDS.values() for promise, history in known.items()})

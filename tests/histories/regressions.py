"""Histories that once broke a promise, or that are rare to come upon. Each is replayed in the normal suite."""

from __future__ import annotations

from tests.histories.steps import History

REGRESSIONS: dict[str, History] = {
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
}

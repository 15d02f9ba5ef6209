"""The request of a run about the data tests of one dbt invocation, and how each test was answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

_LAYOUT = 1


class How(str, Enum):
    """How the answer of a test was found."""

    RUN = "run"
    """dbt ran its query."""
    MERGED = "merged"
    """One query answered it with other tests of the same relation."""
    PROVEN = "proven"
    """It follows from the SQL of its model and from tests that passed on what the model was built from."""


@dataclass(frozen=True, slots=True)
class DataTestRequest:
    """The request of a run about the data tests of one dbt invocation. Both processes read it from a file."""

    builds: frozenset[str] = frozenset()
    """The nodes that the invocation builds, by unique id."""
    views: frozenset[str] = frozenset()
    """The views that it does not build, and whose code is the one that they were created from."""
    mergeable: frozenset[str] = frozenset()
    """The tests that may be answered with others in one query."""
    provable: frozenset[str] = frozenset()
    """The tests that may be answered by a proof."""
    premises: frozenset[str] = frozenset()
    """The tests of the invocation that a proof may rely on, once they have passed."""
    passed: Mapping[str, str] = field(default_factory=dict)
    """The tests that the invocation does not run and that passed on what it reads, each with its label in a proof."""
    verified_share: float = 0.0
    """The share of proven tests that are run all the same, from 0 to 1."""

    def to_json(self) -> str:
        """Return the content of the file."""
        return json.dumps(
            {
                "layout": _LAYOUT,
                "builds": sorted(self.builds),
                "views": sorted(self.views),
                "mergeable": sorted(self.mergeable),
                "provable": sorted(self.provable),
                "premises": sorted(self.premises),
                "passed": dict(self.passed),
                "verified_share": self.verified_share,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> DataTestRequest:
        """Return the request in a file. Raises ValueError for anything else than such a file."""
        try:
            document = json.loads(text)
            if document["layout"] != _LAYOUT:
                msg = "not a request of this version"
                raise ValueError(msg)
            return cls(
                frozenset(document["builds"]),
                frozenset(document["views"]),
                frozenset(document["mergeable"]),
                frozenset(document["provable"]),
                frozenset(document["premises"]),
                document["passed"],
                float(document["verified_share"]),
            )
        except (LookupError, TypeError, AttributeError) as error:
            msg = "not a request about data tests"
            raise ValueError(msg) from error


@dataclass(frozen=True, slots=True)
class AnsweredTest:
    """How one test was answered: a line of its own kind in a file of traces, for each that dbt did not just run."""

    test: str
    how: How
    merged: int = 0
    """The number of tests that one query answered, this one included."""
    seconds: float = 0.0
    """Its share of the time that this query took."""
    proof: str = ""
    """The proof, also of a test that was run to verify it."""
    premises: tuple[str, ...] = ()
    """The tests that the proof relies on."""
    failures: int = 0
    """The number of failures of a test that was run to verify a proof: any but 0 contradicts it."""

    @property
    def is_verified(self) -> bool:
        """Whether it was run although it is proven."""
        return self.how is How.RUN and bool(self.proof)

    @property
    def is_contradicted(self) -> bool:
        """Whether its answer contradicts its proof."""
        return self.is_verified and self.failures != 0

    def to_json(self) -> str:
        """Return one line for a file of traces."""
        parts = {
            "answered": self.test,
            "how": self.how.value,
            "merged": self.merged,
            "seconds": round(self.seconds, 6),
            "proof": self.proof,
            "premises": list(self.premises),
            "failures": self.failures,
        }
        return json.dumps({name: value for name, value in parts.items() if value}, separators=(",", ":"))


def answered_test(line: str) -> AnsweredTest | None:
    """Return how a test was answered, from a line of a file of traces; None where it is another kind of line.

    Raises ValueError for anything else than a line of such a file.

    >>> answered_test(AnsweredTest("test.shop.ids", How.MERGED, merged=3).to_json()).merged
    3
    """
    document: Any = json.loads(line)
    if not isinstance(document, dict) or "answered" not in document:
        return None
    return AnsweredTest(
        test=str(document["answered"]),
        how=How(document["how"]),
        merged=int(document.get("merged", 0)),
        seconds=float(document.get("seconds", 0)),
        proof=str(document.get("proof", "")),
        premises=tuple(document.get("premises", ())),
        failures=int(document.get("failures", 0)),
    )

"""Findings of the doctor, as values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

import dagster as dg
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import as_text, styled
from dagster_sao.api.sources import Look
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject


class Severity(str, Enum):
    """The severity of a finding."""

    ERROR = "error"
    """State-aware runs do not work."""
    WARNING = "warning"
    """A model is probably not built when its author expects."""
    INFO = "info"
    """A setting costs time or money, or has no effect."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of the doctor: what is wrong, where, and the remedy."""

    severity: Severity
    rule: str
    """The stable name of the rule."""
    message: str
    remedy: str
    node: str = ""
    file: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON."""
        return {
            "severity": self.severity.value,
            "rule": self.rule,
            "node": self.node,
            "file": self.file,
            "message": self.message,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of the doctor, the worst first. Prints as a table."""

    project_name: str
    findings: tuple[Finding, ...]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def has(self, *severities: Severity) -> bool:
        """Return whether there is a finding of one of these severities."""
        return any(finding.severity in severities for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"project": self.project_name, "findings": [finding.to_dict() for finding in self.findings]}

    def __rich__(self) -> RenderableType:
        """Return it as a table."""
        if not self.findings:
            return Text(f"{self.project_name}: nothing found", style="green")
        table = Table(title=f"{self.project_name}: {len(self.findings)} findings", title_justify="left")
        for heading in ("severity", "rule", "where", "what", "remedy"):
            table.add_column(heading)
        for finding in self.findings:
            where = Text("\n".join(part for part in (finding.node, finding.file) if part))
            table.add_row(
                styled(finding.severity.value), finding.rule, where, Text(finding.message), Text(finding.remedy)
            )
        return table

    def __str__(self) -> str:
        return as_text(self)


@dataclass(frozen=True)
class Patient:
    """The input of the rules."""

    definitions: dg.Definitions
    project: OrchestratedProject
    loaded: LoadedProject
    now: datetime
    state: StateSnapshot = field(default_factory=StateSnapshot)
    instance: dg.DagsterInstance | None = None
    instance_problem: str = ""
    """Why there is no instance."""
    look: Look | None = None
    """The tokens of the sources now; None when the warehouse was not probed."""

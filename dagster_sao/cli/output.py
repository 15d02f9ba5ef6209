"""Where output goes: results to stdout, as text or as one JSON document; everything else to stderr."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, Protocol

import click
from rich.console import Console, RenderableType

from dagster_sao.api.for_cli import MaskedStream, masked_values

_WIDTH_OF_A_FILE = 160


class _Shown(Protocol):
    """A result that can be shown both ways."""

    def to_dict(self) -> Mapping[str, Any]:
        """Return it as JSON."""

    def __rich__(self) -> RenderableType:
        """Return it for a terminal."""


class Output:
    """The output of a command, in the form that its options name."""

    def __init__(self, form: str, *, quiet: bool = False) -> None:
        """Show results in `form`, `text` or `json`; with `quiet` nothing but them and errors."""
        self.is_json = form == "json"
        self.quiet = quiet
        # rich leaves colours out by itself where stdout is not a terminal or NO_COLOR is set.
        self._out = _console(sys.stdout)
        self.err = _console(_own_copy(sys.stderr))

    def show(self, result: _Shown) -> None:
        """Show a result."""
        if self.is_json:
            self.show_json(result.to_dict())
        else:
            self._out.print(result)

    def show_json(self, document: object) -> None:
        """Write one JSON document to stdout."""
        click.echo(json.dumps(masked_values(document), indent=2))

    def line(self, text: RenderableType) -> None:
        """Show a line of text as result, on stdout."""
        self._out.print(text)

    def note(self, text: str) -> None:
        """Write a note to stderr, beside the result, unless the output is quiet."""
        if not self.quiet:
            self.err.print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        """Warn on stderr, unless the output is quiet."""
        if not self.quiet:
            self.err.print(f"Warning: {text}", style="yellow", markup=False, highlight=False)


def _own_copy(stream: Any) -> Any:  # noqa: ANN401 (a stream)
    """Return another stream to the same place: Dagster takes over the usual one while a step runs."""
    try:
        return os.fdopen(os.dup(stream.fileno()), "w", buffering=1, encoding="utf-8", errors="replace")
    except (OSError, io.UnsupportedOperation):
        return stream


def _console(stream: Any) -> Console:  # noqa: ANN401 (a stream)
    width = None if stream.isatty() else _WIDTH_OF_A_FILE
    masking: Any = MaskedStream(stream)
    return Console(file=masking, width=width, highlight=False, soft_wrap=False)


@contextmanager
def stdout_kept_clean(*, to_stderr: bool) -> Iterator[None]:
    """Keep the output of dbt, Dagster and their processes off stdout.

    It goes to stderr, or nowhere: Dagster keeps it with the run.
    """
    descriptor = None
    with suppress(OSError, io.UnsupportedOperation):
        descriptor = sys.stdout.fileno()
    if descriptor is None:
        with redirect_stdout(sys.stderr if to_stderr else io.StringIO()):
            yield
        return
    sys.stdout.flush()
    kept = os.dup(descriptor)
    elsewhere = os.dup(sys.stderr.fileno()) if to_stderr else os.open(os.devnull, os.O_WRONLY)
    os.dup2(elsewhere, descriptor)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(elsewhere)

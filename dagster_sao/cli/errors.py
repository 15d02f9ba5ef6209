"""How a command ends. Exit codes are dbt's: 0 all well, 1 a node or test failed, 2 wrong usage or anything unexpected."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click
import dagster as dg

from dagster_sao.api.for_cli import masked, sentence
from dagster_sao.errors import DagsterSaoError

EXIT_FAILED = 1
_EXIT_UNUSABLE = 2


class _UnusableError(click.ClickException):
    """One sentence on stderr, and exit code 2."""

    exit_code = _EXIT_UNUSABLE


@contextmanager
def told_in_one_line(*, debug: bool) -> Iterator[None]:
    """Report every error in one line; for an unexpected one, also how to see its traceback."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except DagsterSaoError as error:
        _show_trace(debug=debug)
        raise _UnusableError(sentence(error)) from error
    except KeyboardInterrupt:
        msg = "Interrupted. What was built until then is recorded."
        raise _UnusableError(msg) from None
    except Exception as error:
        _show_trace(debug=debug)
        hint = "" if debug else " (--debug shows where)"
        raise _UnusableError(f"{_what_happened(error)}{hint}") from error


def _what_happened(error: BaseException) -> str:
    """Return an error and what led to it: of a mistake in a component, Dagster's own error says only which component it is in."""
    cause = error.__cause__
    if cause is not None and str(cause) not in str(error):
        where = masked(str(error).partition("\n")[0]).rstrip(" :")
        return f"{where}: {_named(cause)}"
    return _named(error)


def _named(error: BaseException) -> str:
    is_clear = isinstance(error, (dg.DagsterError, DagsterSaoError))
    return sentence(error) if is_clear else f"{type(error).__name__}: {sentence(error)}"


def _show_trace(*, debug: bool) -> None:
    if debug:
        sys.stderr.write(masked(traceback.format_exc()))

"""Keep credentials out of every text that leaves this layer. Knows nothing of dbt: it reads plain values."""

# ruff: noqa: ANN401  # values of a profile or manifest, of any type until they are looked at

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"

_SECRET_NAME = re.compile(
    r"pass(word|phrase|wd)?$|^pwd$|secret|token|credential|private_key|api_?key|access_key|keyfile_json"
    r"|session_key|connection_string|authorization|jwt",
    re.IGNORECASE,
)
_ENV_VAR = re.compile(r"env_var\(\s*['\"]([^'\"]+)['\"]")
# Credentials inside one longer value: `postgres:dbname=x password=y`, `https://user:y@host`.
_INLINE = re.compile(r"(\b(?:password|passwd|pwd|token|secret)\s*=\s*)('[^']*'|\"[^\"]*\"|[^\s;&,)]+)", re.IGNORECASE)
_USERINFO = re.compile(r"(\w://[^\s:/@]+:)[^\s@/]+@")
# A password such as `x` must not turn every x of a message into a mask.
_SHORT = 6


class Redactor:
    """Replace known secret values, and what looks like one, in a text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = {
            form for secret in secrets for form in (secret, quote(secret, safe=""), quote_plus(secret)) if form
        }
        longest_first = sorted(spellings, key=len, reverse=True)
        self._known = re.compile("|".join(_pattern(secret) for secret in longest_first)) if longest_first else None

    def __call__(self, text: str) -> str:
        """Return `text` without credentials."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _USERINFO.sub(rf"\g<1>{MASK}@", _INLINE.sub(rf"\g<1>{MASK}", text))


def secrets_in(value: Any, environment: Mapping[str, str], *, public: Iterable[str] = ()) -> Iterator[str]:
    """Yield the secret values of a profile target or of rendered credentials.

    A value is secret when the name above it says so; names in `public` never are. An unrendered value also
    gives the environment variables that it reads, and `DBT_ENV_SECRET_*` variables are always secret.
    """
    yield from (text for name, text in environment.items() if name.startswith("DBT_ENV_SECRET") and text)
    yield from _walk(value, environment, frozenset(public), secret=False)


def _walk(value: Any, environment: Mapping[str, str], public: frozenset[str], *, secret: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            # dbt-duckdb's `secrets` is a list of settings, most of them harmless.
            named_so = _SECRET_NAME.search(str(name)) is not None and name not in {*public, "secrets"}
            yield from _walk(inner, environment, public, secret=secret or named_so)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _walk(inner, environment, public, secret=secret)
    elif secret and value not in (None, "", True, False):
        text = str(value)
        yield text
        # A private key has many lines, and an error may quote one of them.
        yield from (line for line in text.splitlines() if len(line) > _SHORT)
        yield from (environment[name] for name in _ENV_VAR.findall(text) if environment.get(name))


def _pattern(secret: str) -> str:
    escaped = re.escape(secret)
    return rf"(?<!\w){escaped}(?!\w)" if len(secret) < _SHORT else escaped

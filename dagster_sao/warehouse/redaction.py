"""The one door for every text that leaves this package: it masks credentials. Knows nothing of dbt: it reads plain values."""

# ruff: noqa: ANN401  # values of a profile or manifest, of any type until they are looked at

from __future__ import annotations

import html
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dbt_dagster_sao.digests import SECRET_PREFIX

_MASK = "***"

_SECRET_NAME = re.compile(
    r"pass(word|phrase|wd)?$|^pwd$|secret|token|credential|private_key|api_?key|access_key|keyfile_json"
    r"|session_key|connection_string|authorization|jwt",
    re.IGNORECASE,
)
# Names of settings that only lead to a secret, or describe one.
_ABOUT_SECRETS = re.compile(r"_(path|file|endpoint|uri|url|type|lifetime|expires_at)$", re.IGNORECASE)
_ENV_VAR = re.compile(r"env_var\(\s*['\"]([^'\"]+)['\"]")
# What looks like a credential in a longer text; the value is the group `secret`.
_LOOKS_SECRET = re.compile(
    r"""
      -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----(?P<a>.*?)(?:-----END|\Z)
    | \b\w*(?:password|passwd|passphrase|pwd|token|secret|api_?key|access_key|private_key|signature|\bsig)["']?
      \s*=\s*(?P<b>'[^']*'|"[^"]*"|[^\s;&,)"'}]+)
    | \b\w*(?:password|passwd|passphrase|pwd|private_key|api_?key|access_key|client_secret|access_token)["']?
      \s*:\s*(?P<c>'[^']*'|"[^"]*"|[^\s;&,)"'}{]+)
    | \bauthorization["']?\s*[:=]\s*["']?(?P<d>(?:(?:basic|bearer|token)\s+)?[^\s"',;]+)
    | \bbearer\s+(?P<e>[\w.~+/=-]{8,})
    | \w://[^\s:/@]*:(?P<f>[^\s"']+)@
    | \w://(?P<g>[^\s:/@]{8,})@
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
# A password such as `x` must not turn every x of a message into a mask.
_SHORT = 6


class _Redactor:
    """Replaces known secrets, and values that look like one, in a text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = {form for secret in secrets for form in _spellings(secret)}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._known = re.compile("|".join(_pattern(secret) for secret in longest_first)) if longest_first else None

    def __call__(self, text: str) -> str:
        """Return `text` without credentials."""
        while (safer := self._once(text)) != text:
            text = safer
        return text

    def _once(self, text: str) -> str:
        spans = [match.span(name) for match in _LOOKS_SECRET.finditer(text) for name in "abcdefg" if match[name]]
        if self._known is not None:
            spans += [match.span() for match in self._known.finditer(text)]
        # All are found in the original text: a value that one rule masks in part would be unknown to the other.
        pieces, at = [], 0
        for start, end in _joined(spans):
            pieces += [text[at:start], _MASK]
            at = end
        return "".join([*pieces, text[at:]])


class _Learnt:
    """The secrets that this process has met, and the pattern that masks them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: set[str] = set()
        self._masks: tuple[frozenset[str], _Redactor] | None = None

    def add(self, secrets: Iterable[str]) -> None:
        found = set(secrets)
        with self._lock:
            if not found <= self._secrets:
                self._secrets |= found
                self._masks = None

    def redactor(self, environment: Mapping[str, str]) -> _Redactor:
        of_dbt = frozenset(_env_secrets(environment))
        with self._lock:
            if self._masks is None or self._masks[0] != of_dbt:
                self._masks = of_dbt, _Redactor(self._secrets | of_dbt)
            return self._masks[1]


_LEARNT = _Learnt()


def learn(secrets: Iterable[str]) -> None:
    """Note secret values. From now on `masked` hides them in every text of this process."""
    _LEARNT.add(secrets)


def masked(text: str) -> str:
    """Return `text` without the secrets that this process knows, and without values that look like one.

    The one door: every text that this package shows, logs, raises or records goes through here.
    """
    return _LEARNT.redactor(os.environ)(text)


class MaskedStream:
    """A stream that lets no secret through."""

    def __init__(self, stream: Any, before: Callable[[str], str] = str) -> None:
        """Write each text to `stream`, after `before` and masked."""
        self._stream = stream
        self._before = before

    def __getattr__(self, name: str) -> Any:
        """Return whatever else the stream has."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text without its secrets; return how many characters were written."""
        return int(self._stream.write(masked(self._before(text))))


def masked_values(value: Any) -> Any:
    """Return a value of JSON with every text in it masked."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {name: masked_values(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked_values(inner) for inner in value]
    return value


def secrets_in(value: Any, environment: Mapping[str, str], *, public: Iterable[str] = ()) -> Iterator[str]:
    """Yield the secret values of a profile target or of rendered credentials.

    A value is secret when a name above it says so, except for names in `public`. An unrendered value also
    gives the environment variables that it reads, and `DBT_ENV_SECRET_*` variables are always secret.
    """
    yield from _env_secrets(environment)
    found = list(_walk(value, environment, frozenset(public), secret=False))
    # A password that is also the user or the schema hides nothing, and messages need these names.
    plain = {text for text, is_secret in found if not is_secret}
    yield from (text for text, is_secret in found if is_secret and text not in plain)


def _env_secrets(environment: Mapping[str, str]) -> Iterator[str]:
    # By name first: reading all values of `os.environ` takes three times as long, for each text.
    names = [name for name in environment if name.startswith(SECRET_PREFIX)]
    return (text for name in names if (text := environment.get(name)))


def _spellings(secret: str) -> Iterator[str]:
    """Yield the spellings of a secret: as it is, in JSON, in HTML, as a literal of Python, in one line."""
    in_html = {html.escape(secret), html.escape(secret, quote=False)}
    forms = {secret, *in_html, json.dumps(secret)[1:-1], repr(secret)[1:-1], " ".join(secret.split())}
    return (form for form in forms if form.strip("*").strip())


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield spans in order, overlapping ones joined."""
    last: tuple[int, int] | None = None
    for start, end in sorted(spans):
        if last is not None and start < last[1]:
            last = last[0], max(last[1], end)
            continue
        if last is not None:
            yield last
        last = start, end
    if last is not None:
        yield last


def _walk(
    value: Any, environment: Mapping[str, str], public: frozenset[str], *, secret: bool
) -> Iterator[tuple[str, bool]]:
    """Yield each text in a value, and whether it is secret."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            # dbt-duckdb's `secrets` is a list of settings, most of them harmless.
            named_so = _names_a_secret(str(name)) and name not in {*public, "secrets"}
            yield from _walk(inner, environment, public, secret=secret or named_so)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _walk(inner, environment, public, secret=secret)
    elif value not in (None, "", True, False):
        text = str(value)
        yield text, secret
        if secret:
            # A private key has many lines, and an error may quote one of them.
            yield from ((line, True) for line in text.splitlines() if len(line) > _SHORT)
            yield from ((environment[name], True) for name in _ENV_VAR.findall(text) if environment.get(name))


def _names_a_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None and _ABOUT_SECRETS.search(name) is None


def _pattern(secret: str) -> str:
    escaped = "".join(map(_in_urls, secret))
    return rf"(?<!\w){escaped}(?!\w)" if len(secret) < _SHORT else escaped


def _in_urls(character: str) -> str:
    """Return the pattern of a character, as it is or as in a URL: each library leaves other characters as they are."""
    plain = re.escape(character)
    if character.isascii() and character.isalnum():
        return plain
    # Bytes of the environment that are not UTF-8 come as halves of characters, which cannot be encoded otherwise. A URL
    # within a URL has its percent signs encoded again.
    encoded = "".join(f"%(?:25)*(?i:{byte:02x})" for byte in character.encode("utf-8", "surrogatepass"))
    return rf"(?:{plain}|{encoded}{'|[+]' if character == ' ' else ''})"

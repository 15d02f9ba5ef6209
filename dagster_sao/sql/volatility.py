"""Find SQL that gives other rows at another time, or at another run, over the same data."""

from __future__ import annotations

import re

_KEYWORDS = (
    "current_date|current_time|current_timestamp|localtime|localtimestamp|sysdate|systimestamp|tablesample|"
    "run_started_at|invocation_id"
)
_FUNCTIONS = (
    "now|today|getdate|getutcdate|sysdatetime|sysutcdatetime|clock_timestamp|statement_timestamp|transaction_timestamp|"
    "get_current_timestamp|get_current_time|unix_timestamp|curdate|curtime|rand|random|randn|randstr|uniform|uuid|uuidv4|uuidv7|"
    "gen_random_uuid|gen_random_bytes|generate_uuid|uuid_generate_\\w+|uuid_string|sys_guid|newid|newsequentialid|timeofday|age|"
    "current_datetime|current_localtime|current_localtimestamp|utc_date|utc_time|utc_timestamp|nextval|currval|lastval|seq1|seq2|seq4|seq8|txid_current|pg_current_xact_id|pg_backend_pid|current_setting|getvariable|getenv"
)
_DAYS = "now|today|yesterday|tomorrow"
_VOLATILE = re.compile(
    rf"""\b(?:{_KEYWORDS})\b
    | \b(?:{_FUNCTIONS})\s*\(
    | '(?:{_DAYS})'\s*::
    | \b(?:date|time|timestamp|timestamptz|cast\s*\()\s*'(?:{_DAYS})'
    | \busing\s+sample\b
    | \bmodules\s*(?:\.\s*datetime\b|\[)
    | =\s*modules\b
    | \|\s*random\b
    | \blipsum\s*\(""",
    re.IGNORECASE | re.VERBOSE,
)
# Every volatile text has one of these words, or a word with this beginning. Splitting into words is ten times faster than
# trying every name at every place.
_BEGINNING = "uuid_generate_"
_WORDS = frozenset({*_KEYWORDS.split("|"), *_FUNCTIONS.split("|"), *_DAYS.split("|"), "sample", "modules", "lipsum"})
_WORD = re.compile(r"\w+")
# Strings are matched to keep them: comment signs within a string are not comments.
_COMMENTS = re.compile(r"(?P<string>'(?:[^']|'')*')|\{#.*?#\}|--[^\n]*|/\*.*?\*/", re.DOTALL)


def is_volatile(template: str) -> bool:
    """Return whether SQL, Jinja or a macro's body mentions the time, a random value or a sequence.

    >>> is_volatile("select current_date as today")
    True
    >>> is_volatile("select now from events -- not random()")
    False
    """
    if not _may_be_volatile(template):
        return False
    return _VOLATILE.search(_COMMENTS.sub(lambda found: found["string"] or " ", template)) is not None


def _may_be_volatile(text: str) -> bool:
    """Return whether a text has a word that the pattern looks for, its comments included."""
    if not text.isascii():
        return True  # regardless of case, some other letters match ASCII ones, such as the Kelvin sign `k`
    lower = text.lower()
    return _BEGINNING in lower or not _WORDS.isdisjoint(_WORD.findall(lower))

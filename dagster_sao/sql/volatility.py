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
    "current_datetime|current_localtime|current_localtimestamp|utc_date|utc_time|utc_timestamp|nextval|currval|lastval|seq[1248]|txid_current|pg_current_xact_id|pg_backend_pid|current_setting|getvariable|getenv"
)
_VOLATILE = re.compile(
    rf"""\b(?:{_KEYWORDS})\b
    | \b(?:{_FUNCTIONS})\s*\(
    | '(?:now|today|yesterday|tomorrow)'\s*::
    | \b(?:date|time|timestamp|timestamptz|cast\s*\()\s*'(?:now|today|yesterday|tomorrow)'
    | \busing\s+sample\b
    | \bmodules\s*\.\s*datetime\b""",
    re.IGNORECASE | re.VERBOSE,
)
# Strings are matched in order to keep them: comment signs within a string are not comments.
_COMMENTS = re.compile(r"(?P<string>'(?:[^']|'')*')|\{#.*?#\}|--[^\n]*|/\*.*?\*/", re.DOTALL)


def is_volatile(template: str) -> bool:
    """Return whether SQL, Jinja or a macro's body mentions the time, a random value or a sequence.

    >>> is_volatile("select current_date as today")
    True
    >>> is_volatile("select now from events -- not random()")
    False
    """
    return _VOLATILE.search(_COMMENTS.sub(lambda found: found["string"] or " ", template)) is not None

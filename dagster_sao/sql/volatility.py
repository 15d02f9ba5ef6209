"""Find SQL that gives other rows at another time, or at another run, over the same data."""

from __future__ import annotations

import re

_KEYWORDS = (
    "current_date|current_time|current_timestamp|localtime|localtimestamp|sysdate|systimestamp|tablesample|"
    "current_utcdate|current_utctime|current_utctimestamp|dbms_random|run_started_at|invocation_id"
)
_FUNCTIONS = (
    "now|today|getdate|getutcdate|sysdatetime|sysutcdatetime|clock_timestamp|statement_timestamp|transaction_timestamp|"
    "get_current_timestamp|get_current_time|unix_timestamp|curdate|curtime|rand|random|randn|randstr|uniform|uuid|uuidv4|uuidv7|"
    "gen_random_uuid|gen_random_bytes|generate_uuid|uuid_generate_\\w+|uuid_string|sys_guid|newid|newsequentialid|timeofday|age|"
    "current_datetime|current_localtime|current_localtimestamp|utc_date|utc_time|utc_timestamp|nextval|currval|lastval|seq1|seq2|seq4|seq8|txid_current|pg_current_xact_id|pg_backend_pid|current_setting|getvariable|getenv|"
    "now64|now_in_block|nowinblock|utctimestamp|yesterday|rand32|rand64|randbernoulli|randbinomial|randcanonical|randchisquared|"
    "randconstant|randexponential|randlognormal|randnegativebinomial|randnormal|randpoisson|randstudentt|randuniform|generaterandom|"
    "generatesnowflakeid|generateulid|generateuuidv4|generateuuidv7|sysdatetimeoffset|crypt_gen_random|random_bytes|random_normal|"
    "randomblob|uuid_short|uuid_numeric|mz_now|proctime|monotonically_increasing_id|last_query_id|last_insert_id|connection_id"
)
_DAYS = "now|today|yesterday|tomorrow"
# Words of the other patterns below.
_OTHERS = ("sample", "modules", "lipsum", "current", "offset", "date", "time", "datetime", "julianday", "unixepoch")
_VOLATILE = re.compile(
    rf"""\b(?:{_KEYWORDS})\b
    | \b(?:{_FUNCTIONS})\s*\(
    | '(?:{_DAYS})(?:\s[^']*)?'\s*::
    | \b(?:date|time|timestamp|timestamptz|cast\s*\()\s*'(?:{_DAYS})(?:\s[^']*)?'
    | \b(?:date|time|datetime|julianday|strftime|unixepoch|timediff|to_?date|to_?timestamp|to_?datetime)\s*\(\s*(?:'[^']*'\s*,\s*)?'(?:{_DAYS})'
    | \b(?:date|time|datetime|julianday|unixepoch)\s*\(\s*\)
    | \bcurrent\s+(?:date|time|timestamp)\b
    | \bat\s*\(\s*offset\b
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
_WORDS = frozenset({*_KEYWORDS.split("|"), *_FUNCTIONS.split("|"), *_DAYS.split("|"), *_OTHERS})
_WORD = re.compile(r"\w+")
# Strings are matched to keep them: comment signs within a string are not comments.
_COMMENTS = re.compile(r"""(?P<string>'(?:[^']|'')*'|"[^"]*"|`[^`]*`)|\{#.*?#\}|--[^\n]*|/\*.*?\*/""", re.DOTALL)
# Where a string may end elsewhere, what looks like a comment may be code.
_ODD_STRINGS = re.compile(r"""\\['"`]|(?P<sign>['"])(?P=sign){2}|\$\w*\$""")


def is_volatile(template: str) -> bool:
    """Return whether SQL, Jinja or a macro's body mentions the time, a random value or a sequence.

    >>> is_volatile("select current_date as today")
    True
    >>> is_volatile("select now from events -- not random()")
    False
    """
    if not _may_be_volatile(template):
        return False
    return _VOLATILE.search(_without_comments(template)) is not None


def _without_comments(text: str) -> str:
    return text if _ODD_STRINGS.search(text) else _COMMENTS.sub(lambda found: found["string"] or " ", text)


def _may_be_volatile(text: str) -> bool:
    """Return whether a text has a word that the pattern looks for, its comments included."""
    if not text.isascii():
        return True  # regardless of case, some other letters match ASCII ones, such as the Kelvin sign `k`
    lower = text.lower()
    return _BEGINNING in lower or not _WORDS.isdisjoint(_WORD.findall(lower))

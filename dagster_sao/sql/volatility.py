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
_OTHERS = ("sample", "modules", "lipsum")
# A text may have these words in many places, so they get a pattern of their own: with the long one, it would take long.
_COMMON_WORDS = frozenset({"current", "date", "datetime", "julianday", "offset", "time", "unixepoch"})
_OF_COMMON_WORDS = r"""
    \b(?:date|time|datetime|julianday|unixepoch)\s*\(\s*\)
    | \bcurrent\s+(?:date|time|timestamp)\b
    | \bat\s*\(\s*offset\b"""
_FLAGS = re.IGNORECASE | re.VERBOSE
_COMMON = re.compile(_OF_COMMON_WORDS, _FLAGS)
_VOLATILE = re.compile(
    rf"""\b(?:{_KEYWORDS})\b
    | \b(?:{_FUNCTIONS})\s*\(
    | '(?:{_DAYS})(?:\s[^']*)?'\s*::
    | \b(?:date|time|timestamp|timestamptz|cast\s*\()\s*'(?:{_DAYS})(?:\s[^']*)?'
    | \b(?:date|time|datetime|julianday|strftime|unixepoch|timediff|to_?date|to_?timestamp|to_?datetime)\s*\(\s*(?:'[^']*'\s*,\s*)?'(?:{_DAYS})'
    | \busing\s+sample\b
    | \bmodules\s*(?:\.\s*datetime\b|\[)
    | =\s*modules\b
    | \|\s*random\b
    | \blipsum\s*\(
    | {_OF_COMMON_WORDS}""",
    _FLAGS,
)
# Every other volatile text has one of these words, or a word with this beginning. Splitting into words is ten times faster
# than trying every name at every place.
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
    pattern = _pattern_for(template)
    return pattern is not None and pattern.search(_without_comments(template)) is not None


def _without_comments(text: str) -> str:
    return text if _ODD_STRINGS.search(text) else _COMMENTS.sub(lambda found: found["string"] or " ", text)


def _pattern_for(text: str) -> re.Pattern[str] | None:
    """Return the pattern that a text may match, None for none, by the words that it has, its comments included."""
    if not text.isascii():
        return _VOLATILE  # regardless of case, some other letters match ASCII ones, such as the Kelvin sign `k`
    lower = text.lower()
    words = set(_WORD.findall(lower))
    if _BEGINNING in lower or not _WORDS.isdisjoint(words):
        return _VOLATILE
    return None if _COMMON_WORDS.isdisjoint(words) else _COMMON

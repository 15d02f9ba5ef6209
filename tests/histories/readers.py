"""Models that read more than their parents, and what they read: texts with `@dials@`, which edits turn.

Each reads nothing that is loaded often, so that what a missed edit left stays in the rows until the end of a history.
"""

from __future__ import annotations

from collections.abc import Mapping

DIALS: Mapping[str, int] = {
    # What t_read reads.
    **dict.fromkeys(
        ("computed", "alias", "called", "under_execute", "executed", "given", "meta", "tag", "description"), 1
    ),
    # What t_written and t_forms are written with; of some, only whether the number is odd counts.
    **dict.fromkeys(("parentheses", "around_macro", "line_break", "package"), 1),
    # What dbt does besides running the SQL of t_made and of the seed.
    **dict.fromkeys(("override", "hook", "hook_variable", "seed_variable"), 1),
    "moved": 1,
    # Which of two models writes which of two relations.
    "pair": 1,
}
"""What can be turned, with its first number."""

_FORMS: Mapping[str, tuple[str, str]] = {
    "parentheses": ("10 - (4 - 3)", "10 - 4 - 3"),
    "around_macro": ("{{ either() }} and 1 = 2", "({{ either() }}) and 1 = 2"),
    "line_break": (" ", "\n"),
    "under_execute": ("{% if execute %}{{ executed() }}{% else %}0{% endif %}", "0"),
}
"""Dials with two texts. Those of the first three differ by what seems to be decoration, and give other rows."""

VARIABLES = """
  rate_a: @computed@
  rate_b: @alias@
  given: @given@
  hooked: @hook_variable@
  seeded: @seed_variable@
"""
SEED_HOOK = "update {{ this }} set rate = rate + {{ var('seeded') }}"
ENVIRONMENT = "SHOP_LEVEL"
MOVED = "t_moved"
PAIR = ("t_first", "t_second")
"""Models that swap their aliases: t_pair tells what is in their relations."""

_TABLE = "{{ config(materialized='table') }}\n"
FILES: Mapping[str, str] = {
    "models/t_read.sql": _TABLE
    + """
{% set aliased = var %}
select
  {{ var('rate_' ~ 'a') }} as computed,
  {{ aliased('rate_b') }} as alias,
  {{ applied(called_by_name) }} as called,
  @under_execute@ as executed,
  {{ var('given') }} as given,
  '{{ from_environment('SHOP_LEVEL') }}' as environment,
  {{ config.get('meta', {}).get('level', 0) }} as meta,
  '{{ model.tags | join(' ') }}' as tags,
  '{{ model.description }}' as described
""",
    "models/readers.yml": """
models:
  - name: t_read
    description: number @description@
    config: {meta: {level: @meta@}, tags: [tag@tag@]}
""",
    "macros/readers.sql": """
{% macro from_environment(name) %}{{ return(env_var(name, '0')) }}{% endmacro %}
{% macro applied(macro) %}{{ macro() }}{% endmacro %}
{% macro called_by_name() %}@called@{% endmacro %}
{% macro executed() %}@executed@{% endmacro %}
{% macro either() %}1 = 1 or 1 = 2{% endmacro %}
{% macro noted(note) %}-- {{ note }}@line_break@{{ one_more() }}
{% endmacro %}
{% macro one_more() %}, 1 as one_more{% endmacro %}
{% macro stamp(relation) %}update {{ relation }} set n = n + 100 * @hook@ + {{ var('hooked') }}{% endmacro %}
""",
    "packages/helpers/macros/helped.sql": "{% macro helped() %}@package@{% endmacro %}\n",
    "models/t_written.sql": _TABLE
    + """
select {{ helpers.helped() }} as helped {{ noted('a note') }}
""",
    "models/t_forms.sql": _TABLE + "select @parentheses@ as n where @around_macro@",
    "macros/overrides.sql": """
{% macro duckdb__create_table_as(temporary, relation, compiled_code, language='sql', partitioned_by=none, sorted_by=none) -%}
  {%- if relation.identifier.startswith('t_made') -%}
    {%- set compiled_code = 'select *, @override@ as made_by from (' ~ compiled_code ~ ')' -%}
  {%- endif -%}
  {{ dbt.duckdb__create_table_as(temporary, relation, compiled_code, language) }}
{%- endmacro %}
""",
    "models/t_made.sql": "{{ config(materialized='table', post_hook='{% if execute %}{{ stamp(this) }}{% endif %}') }} select 0 as n",
    "models/v_wide.sql": "{{ config(materialized='view') }} select * from {{ source('raw', 'wide') }}",
    "models/t_wide.sql": _TABLE + "select * from {{ ref('v_wide') }}",
    "models/t_unknown.sql": _TABLE + "select max(n) as largest from raw.loose",
    "models/v_unknown.sql": "{{ config(materialized='view') }} select max(n) as largest from raw.loose",
    "models/t_seen.sql": _TABLE + "select largest from {{ ref('v_unknown') }}",
    "models/t_from_seen.sql": _TABLE + "select largest from {{ ref('t_seen') }}",
    "models/t_asked.sql": _TABLE
    + """
{% set tables = run_query("select count(*) from information_schema.tables where table_name like 'part_%'") %}
{% set options = run_query('select max(n) from raw.options') %}
select
  {{ tables.columns[0].values()[0] if execute else 0 }} as parts,
  {{ options.columns[0].values()[0] if execute else 0 }} as largest
""",
    "models/t_this.sql": _TABLE
    + "select {% if load_relation(this) %} (select max(n) + 1 from {{ this }}) {% else %} 1 {% endif %} as n",
    "models/t_from_this.sql": _TABLE + "select n from {{ ref('t_this') }}",
    "models/t_first.sql": "{{ config(materialized='table', alias='pair_' ~ (@pair@ % 2)) }} select 'first' as who",
    "models/t_second.sql": "{{ config(materialized='table', alias='pair_' ~ ((@pair@ + 1) % 2)) }} select 'second' as who",
    "models/t_pair.sql": _TABLE
    + "select (select who from {{ ref('t_first') }}) as first, (select who from {{ ref('t_second') }}) as second",
}
MOVED_SQL = _TABLE + "select @moved@ as n"

READERS = (
    "t_read",
    "t_written",
    "t_forms",
    "t_made",
    "v_wide",
    "t_wide",
    "t_unknown",
    "v_unknown",
    "t_seen",
    "t_from_seen",
    "t_asked",
    "t_this",
    "t_from_this",
    *PAIR,
    "t_pair",
    MOVED,
)
AGREEING: Mapping[str, str] = {"t_from_this": "t_this"}
"""Models whose rows are those of their parent, which a full build in an empty database would not make."""

PACKAGES = "packages: [{local: packages/helpers}]\n"
HELPERS = "{name: helpers, version: 1.0.0}\n"


def filled(text: str, dials: Mapping[str, int]) -> str:
    """Return a text with its dials as they stand."""
    for name, number in dials.items():
        value = _FORMS[name][number % 2] if name in _FORMS else str(number)
        text = text.replace(f"@{name}@", value)
    return text

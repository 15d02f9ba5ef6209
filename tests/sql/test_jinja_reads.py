"""What a template reads: by name where it spells the name out, any name of the kind where it does not."""

from __future__ import annotations

import pytest

from dagster_sao.sql.jinja_reads import EVERYTHING, jinja_reads

CASES = [
    ("select 1", ""),
    ("{{ var('a') }} {{ var('b', var('c')) }}", "var a, var b, var c"),
    ("{{ var('a_' ~ x) }} {{ var('b_' + x) }} {{ var(x) }}", "var *, var a_*, var b_*"),
    ("{{ var('a_' ~ 'b') }}", "var a_b"),
    ("{{ var.has_var('a') }}", "var a"),
    ("{% set v = var %}{{ v('a') }}", "var *"),
    ("{{ my_macro(var) }}", "var *"),
    ("{% set find = env_var %}{{ find('A') }}", "env_var *"),
    ("{{ env_var('A_' ~ region) }}", "env_var A_*"),
    ("{{ env_var('A' if x else 'B') }}", "env_var *"),
    ("{{ config(materialized=var('m')) }}", ""),
    ("{{ config.get('meta') }} {{ config.require('tags') }} {{ config['owner'] }}", "config meta, config owner, config tags"),
    ("{{ config.meta_get('k') }} {{ config.get('meta')['k'] }}", "config meta, meta k"),
    ("{{ config.get(x) }}", "config *"),
    ("{{ my_macro(config) }}", "config *"),
    ("{{ config.persist_column_docs() }}", ""),
    ("{% call set_sql_header(config) %}set x = 1;{% endcall %}", "config sql_header"),
    ("{{ model.tags }} {{ model['description'] }} {{ model.get('name') }}", "model description, model name, model tags"),
    ("{{ tojson(model) }}", "model *"),
    ("{{ target.name }} {{ target['schema'] }} {{ target.get('x') }}", "target name, target schema, target x"),
    ("{{ target }}", "target *"),
    ("{{ flags.STORE_FAILURES }}", "flags STORE_FAILURES"),
    ("{% for node in graph.nodes.values() %}{{ node.name }}{% endfor %}", "graph nodes"),
    ("{{ graph['sources'] }} {{ graph.get('nodes') }}", "graph nodes, graph sources"),
    ("{% do graph.update({}) %}", "graph *"),
    ("{{ graph.cache }}", "graph *"),
    ("{{ builtins.var('a') }}", "var *"),
    ("{{ context['var']('a') }}", "var *"),
    ("{{ config.get(name='meta') }} {{ config.meta_get(key='k') }}", "config *, meta *"),
    ("{% set get = config.get %}{{ get('tags') }}", "config *, meta *"),
    ("{{ config.model.tags }}", "config *, meta *, model *"),
    ("{% for name, value in model.items() %}{{ value }}{% endfor %} {{ target.values() }}", "model *, target *"),
    ("{{ dbt_version }}", "dbt_version *"),
    ("{{ shop['rate_' ~ x]() }} {{ kwargs.get(x) }}", "macro *, macros of a package"),
    ("{{ graph.get(x) }} {{ this.get(x) }}", "graph *"),
    ("{{ shop.get('rate_' ~ x)() }}", "macro *, macros of a package"),
    ("{{ context.get('var')('a') }} {{ builtins.get('var') }}", "var *"),
    ("{% set dispatch = adapter.dispatch %}{{ dispatch('m')() }}", "config *, env_var *, flags *, graph *, macro *, model *, target *, var *"),
    ("{{ adapter['dispatch']('m')() }}", "config *, env_var *, flags *, graph *, macro *, model *, target *, var *"),
    ("{{ kwargs[x] }} {{ varargs[x] }} {{ rows[0] }}", ""),
    # What a template binds itself is not dbt's
    ("{% macro m(model, target) %}{{ model }} {{ target.name }}{% endmacro %}", ""),
    ("{% test t(model, column_name) %}select * from {{ model }}{% endtest %}", ""),
    ("{% for model in models %}{{ model.name }}{% endfor %}{{ model.name }}", "model name"),
    ("{% set target = target.name %}{{ target }}", "target name"),
    ("{% if x %}{% set target = 1 %}{% endif %}{{ target }}", "target *"),
    ("{% materialization m, adapter='duckdb' %}{{ config.get('meta') }}{% endmaterialization %}", "config meta"),
    ("{% snapshot s %}{{ var('a') }}{% endsnapshot %}", "var a"),
    ("{% call(row) each(x) %}{{ row }} {{ var('a') }}{% endcall %}", "var a"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "expected"), CASES)
def test_a_template_reads(template, expected):
    found = sorted(" ".join(read) for read in jinja_reads(template).values)
    assert ", ".join(found) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ broken",
        "{% unknown_tag %}",
        "{{ context[name]() }}",
        "{{ render(text) }}",
        "{{ adapter.dispatch(name)() }}",
        "{{ my_macro(adapter) }}",
        "{{ adapter_macro('x') }}",
        "{{ builtins[x] }}",
        "{{ context.get('rate_' ~ x)() }}",
        "{{ builtins.pop(x) }}",
        "{% for name in context %}{{ name }}{% endfor %}",
        "{{ context.items() }}",
        "{% if 'rate' in context %}1{% endif %}",
    ],
)
def test_a_template_that_is_not_understood_reads_everything(template):
    assert jinja_reads(template).values >= EVERYTHING


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{% set how = rounding %}{{ rounded_by(how) }}", {"rounding", "rounded_by"}),
        ("{{ pack.cents('x') }}", {"pack", "cents"}),
        ("{{ adapter.dispatch('cents', 'pack')('x') }}", {"adapter", "cents"}),
        ("{{ context['cents']('x') }}", {"cents"}),
    ],
)
def test_a_template_mentions_the_macros_that_it_may_call(template, names):
    assert jinja_reads(template).names >= names

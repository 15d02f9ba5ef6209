{% macro cents(column) %}{{ column }} * 100{% endmacro %}
{% macro nested_outer() %}{{ nested_inner() }}{% endmacro %}
{% macro nested_inner() %}'inner'{% endmacro %}
{% macro commented() %}{# before #}'x'{% endmacro %}
{% macro reads_var() %}'{{ var("everywhere") }}'{% endmacro %}
{% macro after_build() %}select 'grant'{% endmacro %}
{% macro unreached() %}1{% endmacro %}
{% materialization special, adapter='duckdb' %}
  {% set target_relation = this.incorporate(type='table') %}
  {% call statement('main') %}create or replace table {{ target_relation }} as ({{ sql }}){% endcall %}
  {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

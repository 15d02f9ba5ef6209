{# Turn whole cents into dollars without going through floating point in the result. #}
{% macro cents_to_dollars(cents) -%}
    cast(({{ cents }}) / 100 as decimal(18, 2))
{%- endmacro %}

{% macro latest(relation) %}select max(loaded_at) from {{ relation }}{% endmacro %}

{% macro packed_value() %}'{{ var("shared") }}{{ var("of_package_only", "none") }}'{% endmacro %}

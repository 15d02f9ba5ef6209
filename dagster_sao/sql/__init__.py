"""Analysis of SQL text without a warehouse. Pure: stdlib, sqlglot and jinja2."""

"""What can be said of SQL text without a warehouse. Pure: stdlib, sqlglot and jinja2."""

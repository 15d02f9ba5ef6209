"""The automation sensor and the condition of each dbt asset."""

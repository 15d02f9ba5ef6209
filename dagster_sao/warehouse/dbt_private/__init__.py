"""The only modules that import dbt and its adapters to reach a database."""

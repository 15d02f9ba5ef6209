"""Everything that is imported from dbt and its adapters to talk to a database, and nothing else is."""

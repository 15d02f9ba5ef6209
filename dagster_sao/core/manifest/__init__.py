"""The project as dbt's manifest has it: nodes, which node reads which, and the settings of each node."""

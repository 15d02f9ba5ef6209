"""What dbt's manifest says of a project: nodes, who reads whom, and what each node asks for."""

"""dbt's selection syntax: the nodes that a user selects, and selections that mean exactly the planned nodes."""

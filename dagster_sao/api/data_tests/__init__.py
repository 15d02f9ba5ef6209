"""How data tests would be answered: which would need a query of their own, and why."""

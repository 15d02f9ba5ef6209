"""Many questions in few statements, and values of their answers."""

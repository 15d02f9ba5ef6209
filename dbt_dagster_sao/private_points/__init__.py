"""Every private point of dbt that the trace depends on. `tests/trace/test_private_points.py` names each of them.

If a dbt version lacks a point, the kinds of reads that are recorded there are missing from the trace. If it lacks an
essential one, nothing is traced, and dbt runs as ever.
"""

"""Every private point of dbt that the trace depends on. `tests/trace/test_private_points.py` names each of them.

If a dbt version lacks a point, the trace lacks the kinds of reads that are recorded there. If it lacks an essential point,
nothing is traced, and dbt runs as usual.
"""

{{ config(freshness={"build_after": {"count": 30, "period": "minute"}}) }} select 1 as id

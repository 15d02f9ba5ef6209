{{ config(meta={"dagster_sao": {"rebuild_every": "3d", "content_fingerprint": true}}) }} select 1 as id

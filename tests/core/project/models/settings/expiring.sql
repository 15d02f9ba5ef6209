{{ config(meta={"dagster_sao": {"expire_with_sources": true}}) }} select id from {{ source('raw', 'orders') }}

{{ config(materialized='view') }} select id, amount, loaded_at from {{ source('raw', 'orders') }}

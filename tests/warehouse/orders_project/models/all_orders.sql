{{ config(materialized='view') }} select id, item from {{ source('raw', 'orders') }}

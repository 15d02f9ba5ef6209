{{ config(materialized='ephemeral') }} select {{ cents('id') }} as cents, id from {{ source('raw', 'orders') }}

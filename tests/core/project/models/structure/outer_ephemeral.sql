{{ config(materialized='ephemeral') }} select * from {{ ref('inner_ephemeral') }} join {{ source('raw', 'customers') }} using (id)

{{ config(materialized='ephemeral') }}

select
    product_id,
    sum(cost_cents) as cost_cents,
    bool_or(is_perishable) as is_perishable
from {{ ref('stg_supplies') }}
group by product_id

{{ config(materialized='table') }}

with items as (

    select
        order_id,
        cast(sum(quantity) as bigint) as item_count,
        cast(sum(revenue_cents) as bigint) as subtotal_cents,
        max(loaded_at) as loaded_at
    from {{ ref('stg_order_items') }}
    group by order_id

)

select
    orders.order_id,
    orders.customer_id,
    orders.store_id,
    orders.status,
    orders.ordered_at,
    orders.ordered_on,
    coalesce(items.item_count, 0) as item_count,
    coalesce(items.subtotal_cents, 0) as subtotal_cents,
    cast(round(coalesce(items.subtotal_cents, 0) * tax_rates.rate) as bigint) as tax_cents,
    -- Items may arrive after their order; either one renews the total.
    greatest(orders.loaded_at, coalesce(items.loaded_at, orders.loaded_at)) as last_loaded_at
from {{ ref('stg_orders') }} as orders
inner join {{ ref('stg_stores') }} as stores on orders.store_id = stores.store_id
inner join {{ ref('tax_rates') }} as tax_rates on stores.region = tax_rates.region
left join items on orders.order_id = items.order_id

with orders as (

    select
        customer_id,
        count(*) as order_count,
        min(ordered_at) as first_ordered_at,
        max(ordered_at) as last_ordered_at
    from {{ ref('int_order_totals') }}
    group by customer_id

)

select
    customers.customer_id,
    customers.customer_name,
    customers.email,
    customers.created_at,
    coalesce(orders.order_count, 0) as order_count,
    orders.first_ordered_at,
    orders.last_ordered_at,
    coalesce(orders.order_count, 0) >= {{ var('loyal_after_orders') }} as is_loyal
from {{ ref('stg_customers') }} as customers
left join orders on customers.customer_id = orders.customer_id

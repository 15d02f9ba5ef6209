with paid as (

    select
        orders.customer_id,
        sum(payments.net_cents) as net_cents
    from {{ ref('int_payments_net') }} as payments
    inner join {{ ref('fct_orders') }} as orders on payments.order_id = orders.order_id
    group by orders.customer_id

)

select
    customer_id,
    {{ cents_to_dollars('net_cents') }} as lifetime_value,
    net_cents >= {{ var('high_value_dollars') }} * 100 as is_high_value
from paid

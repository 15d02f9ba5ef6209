with revenue as (

    select
        ordered_on,
        sum(order_count) as order_count,
        sum(revenue) as revenue
    from {{ ref('daily_revenue') }}
    group by ordered_on

),

payments as (

    select
        paid_on,
        sum(net) as net_paid
    from {{ ref('fct_payments') }}
    group by paid_on

)

select
    revenue.ordered_on as day,
    cast(revenue.order_count as bigint) as order_count,
    revenue.revenue,
    coalesce(payments.net_paid, 0) as net_paid
from revenue
left join payments on revenue.ordered_on = payments.paid_on

{{ config(freshness={'build_after': {'count': 1, 'period': 'minute', 'updates_on': 'any'}}) }}

with sessions as (

    select
        started_on,
        cast(sum(session_count) as bigint) as session_count
    from {{ ref('int_sessions_daily') }}
    group by started_on

),

orders as (

    select
        ordered_on,
        count(*) as order_count
    from {{ ref('fct_orders') }}
    group by ordered_on

)

select
    sessions.started_on,
    sessions.session_count,
    coalesce(orders.order_count, 0) as order_count
from sessions
left join orders on sessions.started_on = orders.ordered_on

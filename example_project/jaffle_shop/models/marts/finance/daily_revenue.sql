select
    ordered_on,
    store_id,
    count(*) as order_count,
    sum(subtotal) as revenue,
    sum(tax) as tax
from {{ ref('fct_orders') }}
where status <> 'returned'
group by ordered_on, store_id

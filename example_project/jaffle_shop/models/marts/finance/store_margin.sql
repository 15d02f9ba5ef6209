select
    stores.store_id,
    stores.store_name,
    items.category,
    sum(items.revenue) as revenue,
    sum(items.margin) as margin
from {{ ref('fct_order_items') }} as items
inner join {{ ref('dim_stores') }} as stores on items.store_id = stores.store_id
group by stores.store_id, stores.store_name, items.category

select
    items.order_item_id,
    items.order_id,
    items.product_id,
    orders.store_id,
    orders.ordered_on,
    items.category,
    items.quantity,
    {{ cents_to_dollars('items.revenue_cents') }} as revenue,
    {{ cents_to_dollars('items.cost_cents') }} as cost,
    {{ cents_to_dollars('items.revenue_cents - items.cost_cents') }} as margin
from {{ ref('int_order_items_priced') }} as items
inner join {{ ref('stg_orders') }} as orders on items.order_id = orders.order_id

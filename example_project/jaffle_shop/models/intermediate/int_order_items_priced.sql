select
    items.order_item_id,
    items.order_id,
    items.product_id,
    products.category,
    items.quantity,
    items.revenue_cents,
    items.quantity * coalesce(costs.cost_cents, 0) as cost_cents
from {{ ref('stg_order_items') }} as items
inner join {{ ref('stg_products') }} as products on items.product_id = products.product_id
left join {{ ref('int_product_costs') }} as costs on items.product_id = costs.product_id

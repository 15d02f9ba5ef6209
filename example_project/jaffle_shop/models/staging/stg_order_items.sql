select
    id as order_item_id,
    order_id,
    product_id,
    quantity,
    unit_price_cents,
    quantity * unit_price_cents as revenue_cents,
    loaded_at
from {{ source('shop', 'order_items') }}

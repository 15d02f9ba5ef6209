select
    id as product_id,
    sku,
    name as product_name,
    category,
    price_cents
from {{ source('shop', 'products') }}

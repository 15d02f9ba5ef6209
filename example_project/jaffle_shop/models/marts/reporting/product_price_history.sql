select
    history.id as product_id,
    products.product_name,
    {{ cents_to_dollars('history.price_cents') }} as price,
    history.dbt_valid_from as valid_from,
    history.dbt_valid_to as valid_to
from {{ ref('products_snapshot') }} as history
left join {{ ref('dim_products') }} as products on history.id = products.product_id

select
    products.product_id,
    products.sku,
    products.product_name,
    products.category,
    {{ cents_to_dollars('products.price_cents') }} as price,
    {{ cents_to_dollars('coalesce(costs.cost_cents, 0)') }} as supply_cost,
    coalesce(costs.is_perishable, false) as is_perishable
from {{ ref('stg_products') }} as products
left join {{ ref('int_product_costs') }} as costs on products.product_id = costs.product_id

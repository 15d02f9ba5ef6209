select
    id as order_id,
    customer_id,
    store_id,
    status,
    ordered_at,
    cast(ordered_at as date) as ordered_on,
    loaded_at
from {{ source('shop', 'orders') }}
where not is_test

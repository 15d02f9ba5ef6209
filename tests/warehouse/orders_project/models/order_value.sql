select sum(prices.price) as price
from {{ ref('all_orders') }} as orders join {{ source('raw', 'prices') }} as prices on prices.item = orders.item

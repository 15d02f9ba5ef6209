select count(*) as orders from {{ ref('all_orders') }}

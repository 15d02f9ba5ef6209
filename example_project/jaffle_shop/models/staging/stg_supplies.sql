-- A CSV file has no types of its own; what DuckDB guesses may change with the rows.
select
    cast(supply_id as bigint) as supply_id,
    cast(product_id as bigint) as product_id,
    cast(name as varchar) as supply_name,
    cast(cost_cents as bigint) as cost_cents,
    cast(is_perishable as boolean) as is_perishable
from {{ source('landing', 'supplies') }}

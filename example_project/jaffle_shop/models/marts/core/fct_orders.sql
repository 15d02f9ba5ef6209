{{ config(materialized='incremental', unique_key='order_id', on_schema_change='append_new_columns') }}

select
    order_id,
    customer_id,
    store_id,
    status,
    ordered_at,
    ordered_on,
    item_count,
    {{ cents_to_dollars('subtotal_cents') }} as subtotal,
    {{ cents_to_dollars('tax_cents') }} as tax,
    {{ cents_to_dollars('subtotal_cents + tax_cents') }} as total,
    last_loaded_at
from {{ ref('int_order_totals') }}
{% if is_incremental() %}
-- Not `>`: rows of the same instant may have arrived since. The unique key makes reading them again harmless.
where last_loaded_at >= (select coalesce(max(last_loaded_at), timestamp '1970-01-01') from {{ this }})
{% endif %}

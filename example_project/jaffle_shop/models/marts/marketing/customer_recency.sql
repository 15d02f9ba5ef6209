-- Reads the clock: the same data gives other rows tomorrow. That is why it has `rebuild_every` in _marketing.yml.
select
    customer_id,
    last_ordered_at,
    date_diff('day', cast(last_ordered_at as date), current_date) as days_since_last_order
from {{ ref('dim_customers') }}
where last_ordered_at is not null

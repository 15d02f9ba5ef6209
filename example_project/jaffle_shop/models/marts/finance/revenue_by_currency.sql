-- What a day's revenue is worth in each currency at the latest rate.
select
    revenue.ordered_on,
    rates.currency,
    cast(sum(revenue.revenue) / max(rates.rate_to_usd) as decimal(18, 2)) as revenue
from {{ ref('daily_revenue') }} as revenue
cross join {{ ref('stg_exchange_rates') }} as rates
group by revenue.ordered_on, rates.currency

-- The latest quote of each currency.
select
    currency,
    rate_to_usd,
    quoted_at
from {{ source('fx', 'exchange_rates') }}
qualify row_number() over (partition by currency order by quoted_at desc, rate_to_usd desc) = 1

select
    stores.store_id,
    stores.store_name,
    stores.region,
    tax_rates.rate as tax_rate,
    stores.opened_on
from {{ ref('stg_stores') }} as stores
inner join {{ ref('tax_rates') }} as tax_rates on stores.region = tax_rates.region

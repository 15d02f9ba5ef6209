-- Nobody gets back more than was paid.
select
    payment_id,
    amount_cents,
    refunded_cents
from {{ ref('int_payments_net') }}
where refunded_cents > amount_cents

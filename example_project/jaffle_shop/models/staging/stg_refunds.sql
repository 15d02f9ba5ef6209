select
    id as refund_id,
    payment_id,
    amount_cents,
    reason,
    refunded_at
from {{ source('payments', 'refunds') }}

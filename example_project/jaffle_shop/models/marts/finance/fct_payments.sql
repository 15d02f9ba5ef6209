select
    payments.payment_id,
    payments.order_id,
    orders.store_id,
    payments.method,
    cast(payments.paid_at as date) as paid_on,
    {{ cents_to_dollars('payments.amount_cents') }} as amount,
    {{ cents_to_dollars('payments.refunded_cents') }} as refunded,
    {{ cents_to_dollars('payments.net_cents') }} as net
from {{ ref('int_payments_net') }} as payments
inner join {{ ref('stg_orders') }} as orders on payments.order_id = orders.order_id

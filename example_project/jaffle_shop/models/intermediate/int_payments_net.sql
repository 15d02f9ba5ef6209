with refunds as (

    select
        payment_id,
        sum(amount_cents) as refunded_cents
    from {{ ref('stg_refunds') }}
    group by payment_id

)

select
    payments.payment_id,
    payments.order_id,
    payments.method,
    payments.paid_at,
    payments.amount_cents,
    cast(coalesce(refunds.refunded_cents, 0) as bigint) as refunded_cents,
    cast(payments.amount_cents - coalesce(refunds.refunded_cents, 0) as bigint) as net_cents
from {{ ref('stg_payments') }} as payments
left join refunds on payments.payment_id = refunds.payment_id

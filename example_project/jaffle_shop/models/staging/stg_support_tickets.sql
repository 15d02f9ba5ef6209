select
    id as ticket_id,
    customer_id,
    topic,
    satisfaction,
    opened_at
from {{ source('crm', 'support_tickets') }}

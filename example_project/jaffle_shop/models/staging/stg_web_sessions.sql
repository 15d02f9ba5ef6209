select
    session_id,
    customer_id,
    channel,
    pages_viewed,
    started_at,
    cast(started_at as date) as started_on
from {{ source('landing', 'web_sessions') }}

select
    started_on,
    channel,
    count(*) as session_count,
    count(distinct customer_id) as known_visitors,
    cast(sum(pages_viewed) as bigint) as pages_viewed
from {{ ref('stg_web_sessions') }}
group by started_on, channel

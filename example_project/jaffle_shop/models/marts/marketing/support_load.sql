select
    tickets.topic,
    customers.is_loyal,
    count(*) as ticket_count,
    cast(sum(tickets.satisfaction) as bigint) as satisfaction_points
from {{ ref('stg_support_tickets') }} as tickets
inner join {{ ref('dim_customers') }} as customers on tickets.customer_id = customers.customer_id
group by tickets.topic, customers.is_loyal

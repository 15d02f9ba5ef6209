select sum(amount) * (select max(rate) from {{ ref('rates') }}) as total from {{ ref('orders') }}

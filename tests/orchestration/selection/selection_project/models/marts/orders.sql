select id, amount * {{ var('discount') }} as amount from {{ ref('paid') }}

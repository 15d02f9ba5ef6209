select id, current_date as today from {{ ref('a_view') }}

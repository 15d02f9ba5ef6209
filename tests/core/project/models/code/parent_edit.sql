select id from {{ source('raw', 'orders') }} -- {{ ref('sql_edit') }}

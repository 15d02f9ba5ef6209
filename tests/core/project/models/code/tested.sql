select id, name from {{ source('raw', 'orders') }}

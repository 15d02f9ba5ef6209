select id, 'Red' as colour from {{ source('raw', 'orders') }}

select id, country from {{ source('raw', 'customers') }}

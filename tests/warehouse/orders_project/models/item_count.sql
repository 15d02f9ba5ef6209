select count(*) as items from {{ source('raw', 'items') }}

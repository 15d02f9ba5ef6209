select id from {{ source('raw', 'moved') }}

select {{ cents('id') }} as cents from {{ source('raw', 'orders') }}

select * from {{ source('plain', 'orders') }}

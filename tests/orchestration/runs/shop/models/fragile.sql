select cast('x' as int) as id from {{ ref('stg') }}

select * from {{ ref('picky') }}

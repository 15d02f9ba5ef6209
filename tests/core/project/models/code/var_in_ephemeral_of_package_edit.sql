select * from {{ ref('packed') }}

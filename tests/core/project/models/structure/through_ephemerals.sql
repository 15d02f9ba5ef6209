select * from {{ ref('outer_ephemeral') }} union all select * from {{ ref('inner_ephemeral') }}

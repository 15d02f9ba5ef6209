select id, '{{ var("of_ephemeral") }}' as of_ephemeral from {{ source('raw', 'orders') }}

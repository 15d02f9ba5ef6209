select * from {{ ref('ephemeral_with_macro') }}

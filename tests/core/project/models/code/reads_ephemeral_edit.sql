select id from {{ ref('ephemeral_edit') }}

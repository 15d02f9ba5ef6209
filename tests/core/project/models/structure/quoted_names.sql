{{ config(alias='Order Lines') }} select id from {{ source('raw', 'quoted') }} where id in (select id from {{ ref('countries') }})

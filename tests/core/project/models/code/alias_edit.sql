{{ config(alias='old_alias') }} select 1 as id

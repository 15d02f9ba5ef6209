{{ config(freshness=none) }} select 1 as id

{{ config(materialized='incremental', unique_key='id') }} select c.id, n.name from {{ ref('stg_customers') }} c join {{ ref('countries') }} n on c.country = n.code

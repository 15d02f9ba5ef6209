{{ config(materialized='view') }} select * from {{ ref('through_ephemerals') }}

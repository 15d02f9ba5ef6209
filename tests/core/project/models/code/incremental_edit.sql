{{ config(materialized='incremental', unique_key='id', incremental_strategy='append', on_schema_change='ignore') }} select 1 as id {% if is_incremental() %} where true {% endif %}

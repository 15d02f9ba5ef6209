{% snapshot kept %}
{{ config(target_schema='main') }}
select id from {{ source('raw', 'orders') }}
{% endsnapshot %}

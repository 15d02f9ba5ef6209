select cast('{{ env_var('CORNER_SHOP_NUMBER', '1') }}' as integer) as id from {{ ref('stg_orders') }}

select '{{ env_var('SHOP_REGION', 'none') }}' as region

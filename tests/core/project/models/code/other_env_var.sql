select '{{ env_var('SHOP_DATABASE', 'none') }}' as region

{{ config(post_hook="select 1 -- {{ after_build() }}") }} select 1 as id

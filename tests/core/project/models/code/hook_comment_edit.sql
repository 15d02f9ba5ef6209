{{ config(pre_hook='select  1 -- why') }} select 1 as id

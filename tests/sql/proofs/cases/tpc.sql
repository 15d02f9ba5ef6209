-- Queries in the manner of TPC-H and TPC-DS, as models. After each `--` line with a name comes one query.

-- h1
select l_returnflag, l_linestatus, sum(l_quantity) as sum_qty, sum(l_extendedprice * (1 - l_discount)) as sum_disc_price,
    avg(l_quantity) as avg_qty, count(*) as count_order
from lineitem where l_shipdate <= date '1998-12-01' - interval '90' day
group by l_returnflag, l_linestatus order by l_returnflag, l_linestatus

-- h2
select s_acctbal, s_name, n_name, p_partkey, p_mfgr
from part, supplier, partsupp, nation, region
where p_partkey = ps_partkey and s_suppkey = ps_suppkey and p_size = 15 and p_type like '%BRASS'
    and s_nationkey = n_nationkey and n_regionkey = r_regionkey and r_name = 'EUROPE'
    and ps_supplycost = (
        select min(ps_supplycost) from partsupp, supplier, nation, region
        where p_partkey = ps_partkey and s_suppkey = ps_suppkey and s_nationkey = n_nationkey and n_regionkey = r_regionkey
            and r_name = 'EUROPE'
    )
order by s_acctbal desc limit 100

-- h3
select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate, o_shippriority
from customer, orders, lineitem
where c_mktsegment = 'BUILDING' and c_custkey = o_custkey and l_orderkey = o_orderkey and o_orderdate < date '1995-03-15'
group by l_orderkey, o_orderdate, o_shippriority order by revenue desc limit 10

-- h4
select o_orderpriority, count(*) as order_count from orders
where exists (select * from lineitem where l_orderkey = o_orderkey and l_commitdate < l_receiptdate)
group by o_orderpriority order by o_orderpriority

-- h7
select supp_nation, cust_nation, l_year, sum(volume) as revenue
from (
    select n1.n_name as supp_nation, n2.n_name as cust_nation, extract(year from l_shipdate) as l_year,
        l_extendedprice * (1 - l_discount) as volume
    from supplier, lineitem, orders, customer, nation n1, nation n2
    where s_suppkey = l_suppkey and o_orderkey = l_orderkey and c_custkey = o_custkey and s_nationkey = n1.n_nationkey
        and c_nationkey = n2.n_nationkey
        and ((n1.n_name = 'FRANCE' and n2.n_name = 'GERMANY') or (n1.n_name = 'GERMANY' and n2.n_name = 'FRANCE'))
) as shipping
group by supp_nation, cust_nation, l_year

-- h13
select c_count, count(*) as custdist
from (
    select c_custkey, count(o_orderkey) as c_count
    from customer left outer join orders on c_custkey = o_custkey and o_comment not like '%special%requests%'
    group by c_custkey
) as c_orders
group by c_count order by custdist desc

-- h15
with revenue (supplier_no, total_revenue) as (
    select l_suppkey, sum(l_extendedprice * (1 - l_discount)) from lineitem group by l_suppkey
)
select s_suppkey, s_name, total_revenue from supplier, revenue
where s_suppkey = supplier_no and total_revenue = (select max(total_revenue) from revenue)

-- h16
select p_brand, p_type, p_size, count(distinct ps_suppkey) as supplier_cnt from partsupp, part
where p_partkey = ps_partkey and p_brand <> 'Brand#45' and p_size in (49, 14, 23)
    and ps_suppkey not in (select s_suppkey from supplier where s_comment like '%Customer%Complaints%')
group by p_brand, p_type, p_size

-- h18
select c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) as quantity
from customer, orders, lineitem
where o_orderkey in (select l_orderkey from lineitem group by l_orderkey having sum(l_quantity) > 300)
    and c_custkey = o_custkey and o_orderkey = l_orderkey
group by c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice

-- h22
select cntrycode, count(*) as numcust, sum(c_acctbal) as totacctbal
from (
    select substring(c_phone from 1 for 2) as cntrycode, c_acctbal from customer
    where substring(c_phone from 1 for 2) in ('13', '31') and c_acctbal > (select avg(c_acctbal) from customer where c_acctbal > 0.00)
        and not exists (select * from orders where o_custkey = c_custkey)
) as custsale
group by cntrycode

-- ds1
with customer_total_return as (
    select sr_customer_sk as ctr_customer_sk, sr_store_sk as ctr_store_sk, sum(sr_return_amt) as ctr_total_return
    from store_returns, date_dim where sr_returned_date_sk = d_date_sk and d_year = 2000
    group by sr_customer_sk, sr_store_sk
)
select c_customer_id from customer_total_return ctr1, store, customer
where ctr1.ctr_total_return > (
        select avg(ctr_total_return) * 1.2 from customer_total_return ctr2 where ctr1.ctr_store_sk = ctr2.ctr_store_sk
    )
    and s_store_sk = ctr1.ctr_store_sk and s_state = 'TN' and ctr1.ctr_customer_sk = c_customer_sk
order by c_customer_id limit 100

-- ds2
with wscs as (
    select sold_date_sk, sales_price
    from (
        select ws_sold_date_sk as sold_date_sk, ws_ext_sales_price as sales_price from web_sales
        union all
        select cs_sold_date_sk as sold_date_sk, cs_ext_sales_price as sales_price from catalog_sales
    ) x
), wswscs as (
    select d_week_seq, sum(case when d_day_name = 'Sunday' then sales_price else null end) as sun_sales
    from wscs, date_dim where d_date_sk = sold_date_sk group by d_week_seq
)
select d_week_seq, round(sun_sales / 2, 2) as half from wswscs

-- ds5
select channel, id, sum(sales) as sales
from (
    select 'store channel' as channel, 'store' || s_store_id as id, sales from ssr
    union all
    select 'web channel' as channel, 'web_site' || web_site_id as id, sales from wsr
) x
group by rollup (channel, id)

-- ds14
with cross_items as (
    select i_item_sk as ss_item_sk from item,
        (
            select iss.i_brand_id as brand_id, iss.i_class_id as class_id from store_sales, item iss where ss_item_sk = iss.i_item_sk
            intersect
            select ics.i_brand_id, ics.i_class_id from catalog_sales, item ics where cs_item_sk = ics.i_item_sk
        ) y
    where i_brand_id = brand_id and i_class_id = class_id
)
select ss_item_sk from cross_items

-- ds23
select c_last_name, c_first_name, sum(ss_quantity * ss_sales_price) as sales
from store_sales, customer where ss_customer_sk = c_customer_sk
group by c_last_name, c_first_name
having sum(ss_quantity * ss_sales_price) > (select 0.95 * max(csales) from (select sum(ss_quantity) as csales from store_sales) z)

-- ds36
select sum(ss_net_profit) as total, i_category, i_class, grouping(i_category) + grouping(i_class) as lochierarchy,
    rank() over (
        partition by grouping(i_category) + grouping(i_class), case when grouping(i_class) = 0 then i_category end
        order by sum(ss_net_profit)
    ) as rank_within_parent
from store_sales, item where i_item_sk = ss_item_sk
group by rollup (i_category, i_class)

-- ds44
select asceding.rnk, i1.i_product_name as best_performing
from (
    select * from (
        select item_sk, rank() over (order by rank_col asc) as rnk
        from (select ss_item_sk as item_sk, avg(ss_net_profit) as rank_col from store_sales group by ss_item_sk having avg(ss_net_profit) > 0.9) v1
    ) v11
    where rnk < 11
) asceding, item i1
where i1.i_item_sk = asceding.item_sk

-- ds51
with web_v1 as (
    select ws_item_sk as item_sk, d_date, sum(sum(ws_sales_price)) over (
        partition by ws_item_sk order by d_date rows between unbounded preceding and current row
    ) as cume_sales
    from web_sales, date_dim where ws_sold_date_sk = d_date_sk group by ws_item_sk, d_date
), store_v1 as (
    select ss_item_sk as item_sk, d_date, sum(ss_sales_price) as cume_sales
    from store_sales, date_dim where ss_sold_date_sk = d_date_sk group by ss_item_sk, d_date
)
select case when web.item_sk is not null then web.item_sk else store.item_sk end as item_sk, web.cume_sales as web_sales
from web_v1 web full outer join store_v1 store on (web.item_sk = store.item_sk and web.d_date = store.d_date)

-- ds75
select distinct d_year, i_brand_id, cs_quantity - coalesce(cr_return_quantity, 0) as sales_cnt
from catalog_sales join item on i_item_sk = cs_item_sk join date_dim on d_date_sk = cs_sold_date_sk
left join catalog_returns on (cs_order_number = cr_order_number and cs_item_sk = cr_item_sk)
where i_category = 'Books'

-- ds97
with ssci as (select ss_customer_sk as customer_sk, ss_item_sk as item_sk from store_sales group by ss_customer_sk, ss_item_sk),
csci as (select cs_bill_customer_sk as customer_sk, cs_item_sk as item_sk from catalog_sales group by cs_bill_customer_sk, cs_item_sk)
select sum(case when ssci.customer_sk is not null and csci.customer_sk is null then 1 else 0 end) as store_only
from ssci full outer join csci on (ssci.customer_sk = csci.customer_sk and ssci.item_sk = csci.item_sk)

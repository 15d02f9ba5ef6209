"""What a jaffle shop's operational systems would write: tables, and rows whose keys fit together.

Knows nothing of Dagster or dbt. Given the same random seed, the same window of time and the same
existing rows, it makes the same new rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    import duckdb

    from jaffle_db import Row

LOAD_LOG = "raw_ops.load_log"
SHARE_OF_TESTS = 0.02
ONE_TICK = timedelta(microseconds=1)

FIRST_NAMES = (
    "Ada",
    "Ben",
    "Chloe",
    "Dev",
    "Elif",
    "Femi",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Luca",
    "Mina",
)
LAST_NAMES = (
    "Abbott",
    "Bauer",
    "Costa",
    "Diaz",
    "Evans",
    "Gupta",
    "Haas",
    "Ito",
    "Jansen",
    "Kaya",
    "Lopez",
    "Novak",
)
FILLINGS = (
    "Ham",
    "Brie",
    "Mango",
    "Lentil",
    "Pesto",
    "Tuna",
    "Apple",
    "Honey",
    "Chili",
    "Mushroom",
)
DRINKS = ("Latte", "Tea", "Lemonade", "Kombucha", "Cola")
CITIES = (
    ("Berlin", "EU"),
    ("London", "UK"),
    ("Brooklyn", "US"),
    ("Toronto", "CA"),
    ("Lyon", "EU"),
    ("Austin", "US"),
)
STATUSES = ("placed", "preparing", "completed", "completed", "completed", "returned")
METHODS = ("card", "card", "card", "cash", "gift_card", "voucher")
REASONS = ("cold", "late", "wrong_item", "changed_mind")
TOPICS = ("delivery", "quality", "billing", "other")
CHANNELS = ("organic", "paid_search", "social", "email")


@dataclass(frozen=True, slots=True)
class Batch:
    """Say what one load makes: how many rows, of which time, with which randomness."""

    rows: int
    start: datetime
    end: datetime
    rng: random.Random

    def moments(self) -> list[datetime]:
        """Return a time for each row, oldest first, no two alike.

        Distinct times matter to `max(loaded_at)`: were two rows to share the newest one, deleting
        either would go unnoticed.
        """
        span = (self.end - self.start).total_seconds()
        picked = sorted(self.start + timedelta(seconds=self.rng.uniform(0, span)) for _ in range(self.rows))
        # The newest row is as new as the load, or a fresh warehouse would look stale.
        picked[-1:] = [self.end] if picked else []
        return [moment + number * ONE_TICK for number, moment in enumerate(picked)]


Generate = Callable[["duckdb.DuckDBPyConnection", Batch], "list[Row]"]


@dataclass(frozen=True, slots=True)
class RawTable:
    """Describe one raw table and what its upstream system does to it."""

    name: str
    columns: str
    generate: Generate
    initial_rows: int
    newest: str = "id"
    """The column that orders rows by age."""
    update_set: str | None = None
    """What an update does, or None where the system never updates. `$now` is the time of the load."""
    delete_where: str | None = None
    """Which rows may go without leaving an orphan, or None where the system never deletes."""
    cascade: tuple[str, ...] = ()
    """Statements that remove the children of the rows listed in the table `doomed` first."""
    logged: bool = False
    """Whether the loader writes each load into its own log."""


def next_id(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """Return the first unused id of a raw table."""
    return _ids(connection, f"select coalesce(max(id), 0) + 1 from {table}")[0]  # noqa: S608  # our own table names


def _ids(connection: duckdb.DuckDBPyConnection, query: str) -> list[int]:
    return [row[0] for row in connection.execute(query).fetchall()]


def _stores(connection: duckdb.DuckDBPyConnection, batch: Batch) -> list[Row]:
    first = next_id(connection, "raw_shop.stores")
    rows: list[Row] = []
    for number, moment in enumerate(batch.moments(), start=first):
        city, region = CITIES[(number - 1) % len(CITIES)]
        branch = (number - 1) // len(CITIES) + 1
        rows.append((number, city if branch == 1 else f"{city} {branch}", region, moment.date()))
    return rows


def _products(connection: duckdb.DuckDBPyConnection, batch: Batch) -> list[Row]:
    first = next_id(connection, "raw_shop.products")
    return [_product(number, batch.rng) for number in range(first, first + batch.rows)]


def _product(number: int, rng: random.Random) -> Row:
    is_drink = number % 3 == 0
    names, category, prefix = (DRINKS, "beverage", "BEV") if is_drink else (FILLINGS, "jaffle", "JAF")
    series = (number - 1) // (3 * len(names)) + 1
    name = names[number % len(names)] + ("" if is_drink else " Jaffle") + ("" if series == 1 else f" No. {series}")
    price = rng.randrange(250, 600, 50) if is_drink else rng.randrange(700, 1500, 50)
    return (number, f"{prefix}-{number:03d}", name, category, price)


def _customers(connection: duckdb.DuckDBPyConnection, batch: Batch) -> list[Row]:
    first = next_id(connection, "raw_shop.customers")
    rows: list[Row] = []
    for number, moment in enumerate(batch.moments(), start=first):
        name = f"{batch.rng.choice(FIRST_NAMES)} {batch.rng.choice(LAST_NAMES)}"
        email = f"{name.lower().replace(' ', '.')}.{number}@example.com"
        rows.append((number, name, email, moment, moment))
    return rows


def _orders(connection: duckdb.DuckDBPyConnection, batch: Batch) -> list[Row]:
    customers = _ids(connection, "select id from raw_shop.customers order by id")
    stores = _ids(connection, "select id from raw_shop.stores order by id")
    first = next_id(connection, "raw_shop.orders")
    rng = batch.rng
    return [
        (
            number,
            rng.choice(customers),
            rng.choice(stores),
            rng.choice(STATUSES),
            rng.random() < SHARE_OF_TESTS,
            moment,
            moment,
        )
        for number, moment in enumerate(batch.moments(), start=first)
    ]


def _order_items(connection: duckdb.DuckDBPyConnection, batch: Batch) -> list[Row]:
    products = connection.execute("select id, price_cents from raw_shop.products order by id").fetchall()
    # Orders that have no items yet come first, so that loading orders and then items fills the
    # new orders.
    orders = _ids(
        connection,
        "select o.id from raw_shop.orders o left join raw_shop.order_items i on i.order_id = o.id"
        " group by o.id order by count(i.id), o.id desc",
    )
    first = next_id(connection, "raw_shop.order_items")
    rows: list[Row] = []
    for number, moment in enumerate(batch.moments()):
        product_id, price_cents = batch.rng.choice(products)
        quantity = batch.rng.choice((1, 1, 1, 2, 3))
        rows.append(
            (
                first + number,
                orders[number % len(orders)],
                product_id,
                quantity,
                price_cents,
                moment,
            )
        )
    return rows


def _payments(connection: duckdb.DuckDBPyConnection, batch: Batch) -> list[Row]:
    # Unpaid orders first; what is left of the batch are tips of a dollar on orders already paid.
    orders = connection.execute(
        "select o.id, coalesce(any_value(i.cents), 500) from raw_shop.orders o"
        " left join (select order_id, sum(quantity * unit_price_cents)::bigint as cents"
        "            from raw_shop.order_items group by order_id) i on i.order_id = o.id"
        " left join raw_payments.payments p on p.order_id = o.id"
        " group by o.id order by count(p.id), o.id"
    ).fetchall()
    first = next_id(connection, "raw_payments.payments")
    rows: list[Row] = []
    for number, moment in enumerate(batch.moments()):
        order_id, cents = orders[number % len(orders)]
        amount = cents if number < len(orders) else 100
        rows.append((first + number, order_id, batch.rng.choice(METHODS), amount, moment))
    return rows


def _refunds(connection: duckdb.DuckDBPyConnection, batch: Batch) -> list[Row]:
    payments = connection.execute(
        "select p.id, p.amount_cents from raw_payments.payments p"
        " anti join raw_payments.refunds r on r.payment_id = p.id order by hash(p.id)"
    ).fetchall()
    first = next_id(connection, "raw_payments.refunds")
    # A payment is refunded once at most, so a batch ends early when no payment is left.
    pairs = zip(payments, batch.moments(), strict=False)
    return [
        (
            first + number,
            payment_id,
            cents // batch.rng.choice((1, 2)),
            batch.rng.choice(REASONS),
            moment,
        )
        for number, ((payment_id, cents), moment) in enumerate(pairs)
    ]


def _tickets(connection: duckdb.DuckDBPyConnection, batch: Batch) -> list[Row]:
    customers = _ids(connection, "select id from raw_shop.customers order by id")
    first = next_id(connection, "raw_crm.tickets")
    rng = batch.rng
    return [
        (number, rng.choice(customers), rng.choice(TOPICS), rng.randint(1, 5), moment)
        for number, moment in enumerate(batch.moments(), start=first)
    ]


DELETE_ORDER_CHILDREN = (
    """
    insert into raw_ops.load_log
    select 'payments', count(*), $now from raw_payments.payments where order_id in (from doomed) having count(*) > 0
    """,
    """
    delete from raw_payments.refunds
    where payment_id in (select id from raw_payments.payments where order_id in (from doomed))
    """,
    "delete from raw_payments.payments where order_id in (from doomed)",
    "delete from raw_shop.order_items where order_id in (from doomed)",
)

TABLES: dict[str, RawTable] = {
    "stores": RawTable(
        name="raw_shop.stores",
        columns="id bigint, name varchar, region varchar, opened_on date",
        generate=_stores,
        initial_rows=5,
    ),
    "products": RawTable(
        name="raw_shop.products",
        columns="id bigint, sku varchar, name varchar, category varchar, price_cents bigint",
        generate=_products,
        initial_rows=15,
        update_set="price_cents = price_cents + 50",
        delete_where="id not in (select product_id from raw_shop.order_items)",
    ),
    "customers": RawTable(
        name="raw_shop.customers",
        columns="id bigint, name varchar, email varchar, created_at timestamp, updated_at timestamp",
        generate=_customers,
        initial_rows=60,
        update_set="email = 'customer.' || id || '@example.org', updated_at = $now + to_microseconds(id)",
    ),
    "orders": RawTable(
        name="raw_shop.orders",
        columns="id bigint, customer_id bigint, store_id bigint, status varchar, is_test boolean,"
        " ordered_at timestamp, loaded_at timestamp",
        generate=_orders,
        initial_rows=300,
        newest="loaded_at",
        update_set="status = case status when 'completed' then 'returned' else 'completed' end,"
        " loaded_at = $now + to_microseconds(id)",
        delete_where="not is_test",
        cascade=DELETE_ORDER_CHILDREN,
    ),
    "order_items": RawTable(
        name="raw_shop.order_items",
        columns="id bigint, order_id bigint, product_id bigint, quantity bigint, unit_price_cents bigint,"
        " loaded_at timestamp",
        generate=_order_items,
        initial_rows=700,
        newest="loaded_at",
        update_set="quantity = quantity + 1, loaded_at = $now + to_microseconds(id)",
        delete_where="true",
    ),
    "payments": RawTable(
        name="raw_payments.payments",
        columns="id bigint, order_id bigint, method varchar, amount_cents bigint, paid_at timestamp",
        generate=_payments,
        initial_rows=280,
        update_set="method = case method when 'card' then 'cash' else 'card' end",
        delete_where="id not in (select payment_id from raw_payments.refunds)",
        logged=True,
    ),
    "refunds": RawTable(
        name="raw_payments.refunds",
        columns="id bigint, payment_id bigint, amount_cents bigint, reason varchar, refunded_at timestamp",
        generate=_refunds,
        initial_rows=20,
        update_set="reason = case reason when 'late' then 'cold' else 'late' end",
        delete_where="true",
    ),
    "support_tickets": RawTable(
        name="raw_crm.tickets",
        columns="id bigint, customer_id bigint, topic varchar, satisfaction bigint, opened_at timestamp",
        generate=_tickets,
        initial_rows=40,
        update_set="satisfaction = 6 - satisfaction",
        delete_where="true",
    ),
}

OTHER_DDL = (
    f"create table {LOAD_LOG} (table_name varchar, row_count bigint, finished_at timestamp)",
    "create table raw_fx.exchange_rates (currency varchar, rate_to_usd double, quoted_at timestamp)",
    # The vendor hands out a view, which tells nobody when its data changed.
    "create view raw_crm.support_tickets as select * from raw_crm.tickets where topic <> 'other'",
)


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the empty raw tables and the schemas they live in."""
    for schema in ("raw_crm", "raw_fx", "raw_ops", "raw_payments", "raw_shop"):
        connection.execute(f"create schema {schema}")
    for table in TABLES.values():
        connection.execute(f"create table {table.name} ({table.columns})")
    for statement in OTHER_DDL:
        connection.execute(statement)

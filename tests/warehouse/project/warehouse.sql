create schema raw;
create table raw.orders as
  select * from (values
    (1, 'a', timestamp '2026-01-01 10:00:00.123456', timestamptz '2026-01-01 11:30:00.5+01:30',
     timestamp_ns '2026-01-01 10:00:00.123456789', date '2026-01-02', '2026-01-03T04:05:06.7Z', 42, null::timestamp),
    (2, 'b', timestamp '2026-02-01 00:00:00', timestamptz '2025-01-01 00:00:00+00',
     timestamp_ns '2025-01-01 00:00:00', date '2025-01-01', '2025-01-01T00:00:00Z', 7, null)
  ) as t(id, kind, loaded_at, zoned_at, nano_at, day, iso_text, number, unfilled_at);
create table raw.empty (loaded_at timestamp);
create table raw.endless as select timestamp 'infinity' as loaded_at;
create schema plain;
create table plain.orders as select * from (values (1, 'a'), (2, 'b')) as t(id, name);
create table plain."Odd Name" (dagster int, "select" varchar);
create view plain.recent as select * from plain.orders;

"""The jaffle shop in Dagster: a dbt project that rebuilds only what changed, and its Python asset.

Loading this file reads the dbt project and touches no data. `load.py init` makes the data.
"""

import dagster as dg
from dagster_dbt import DbtProject

import jaffle_db
from dagster_sao import build_state_aware_definitions, build_state_aware_job

jaffle_shop = DbtProject(project_dir=jaffle_db.PROJECT_DIR)


# The key is that of the dbt source `fx.exchange_rates`. It makes this asset the one that loads
# the source, so that its runs tell what the models need to know, and the warehouse is not asked.
@dg.asset(
    key=["fx", "exchange_rates"],
    group_name="raw_fx",
    owners=["finance@jaffle.example.com"],
    kinds={"python", "duckdb"},
)
def exchange_rates() -> dg.MaterializeResult[None]:
    """Append what one unit of each currency is worth in US dollars now."""
    with jaffle_db.connect() as db:
        count = jaffle_db.append_exchange_rates(db, jaffle_db.utc_now())
    return dg.MaterializeResult(metadata={"rows_appended": count})


# Stopped until somebody starts it, so that an example left alone stays as it is.
quarter_hourly_rates = dg.ScheduleDefinition(
    name="quarter_hourly_rates",
    target=dg.AssetSelection.assets(["fx", "exchange_rates"]),
    cron_schedule="*/15 * * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)

# Ten seconds, so that new rows show while you watch. A real project asks its warehouse less often.
defs = dg.Definitions.merge(
    build_state_aware_definitions(
        jaffle_shop,
        assets=[exchange_rates],
        default_sensor_status=dg.DefaultSensorStatus.RUNNING,
        freshness_interval_seconds=10,
        automation_interval_seconds=10,
        # What the sensors do anyway, for those who would rather have a schedule: stop the sensors and start it.
        jobs=[build_state_aware_job("hourly", schedule="0 * * * *", schedule_enabled=False)],
    ),
    # Every run here is one step after another, so a process for each step would only start later.
    dg.Definitions(schedules=[quarter_hourly_rates], executor=dg.in_process_executor),
)

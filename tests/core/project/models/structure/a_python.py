def model(dbt, session):
    dbt.config(materialized="table")
    # a comment
    return dbt.ref("a_view")

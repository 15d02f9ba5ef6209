def model(dbt, session):
    # a comment
    return session.sql("select 1 as id")

"""Parquet tables: schemas, writing, reading, SQL."""

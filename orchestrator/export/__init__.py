"""A store's contents as flat tables: their definition, Parquet files of them, questions to them."""

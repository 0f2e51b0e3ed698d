"""`gamma scan`: scores of all pictures of a folder, a bucket or a list, as Parquet files."""

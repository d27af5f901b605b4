"""The report of a comparison: one page that needs nothing else, its figures as files, its numbers as parquet."""

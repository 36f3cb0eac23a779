"""Where the rows are: the lake of Parquet files, source readers, snapshots, exports, views."""

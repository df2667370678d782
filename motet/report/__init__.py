"""What a run leaves behind and shows: metrics, pictures, tables, progress."""

"""The report of a sweep: statistics -> figures, tables and sentences -> one page; see `build_report`."""

"""The report of a sweep: results table -> statistics -> pictures -> one page; see `build.py`."""

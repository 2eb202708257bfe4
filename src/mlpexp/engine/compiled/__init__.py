"""The compiled engine: one run at a time, a whole epoch per call, in numba; its bits depend on the run alone."""

"""Results of sweeps -> statistics: ranking, intervals, comparisons, variance."""

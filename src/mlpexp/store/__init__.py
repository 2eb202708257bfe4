"""Directories of runs and sweeps: names, identity, completion markers, locks, atomic writing."""

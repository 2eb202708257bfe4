"""Where the stacks of a sweep are trained: in this process, by several processes, or on a cluster.

The files and their bits are the same everywhere.
"""

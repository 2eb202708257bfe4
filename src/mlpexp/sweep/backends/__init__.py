"""Where the stacks of a sweep are trained: in this process, over its cores, over a cluster.

Whatever the place, the files and their bits are the same.
"""

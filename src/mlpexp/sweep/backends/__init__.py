"""Where the stacks of a sweep are trained: in this process, in processes of this machine, or on a cluster."""

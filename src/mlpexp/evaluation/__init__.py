"""What a finished run can be asked: how good it is and where it errs, its answer to new samples, a file for others."""

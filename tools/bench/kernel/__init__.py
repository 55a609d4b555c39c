"""kd-bench kernel: the sparse loss and its gradient against the other ways to write them."""

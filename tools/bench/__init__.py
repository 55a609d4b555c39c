"""kd-bench: how fast, against its own limit and against what people use instead, in one run."""

"""kd-eval: how faithful a student is to its teacher, and how good both are."""

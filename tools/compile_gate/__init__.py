"""Every shipped Triton configuration, compiled ahead of time and looked at: needs no GPU."""

"""The Triton kernels: what they compute, which configuration a call gets, how it is started."""

"""What a GPU machine is asked for: the steps of tools/gpu_suite.sh, each a module with --help.

They import torch, triton, numpy and this project's kernels and benchmark only.
"""

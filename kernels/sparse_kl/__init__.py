"""KL divergence from a teacher stored as top-k logits to a student's full logits."""

from softlabel.kernels.sparse_kl.linear import linear_sparse_kl
from softlabel.kernels.sparse_kl.losses import RowLosses
from softlabel.kernels.sparse_kl.op import sparse_kl, sparse_kl_grad

__all__ = ["RowLosses", "linear_sparse_kl", "sparse_kl", "sparse_kl_grad"]

"""Fused losses on stored top-k labels, one folder an op."""

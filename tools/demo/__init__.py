"""`make demo`: CIFAR-10 without labels, a real teacher, a small student, one report."""

"""Statistics of stored labels by tar and by source, in one pass over a store."""

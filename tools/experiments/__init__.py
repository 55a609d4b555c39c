"""The claims that docs/results.md reports: one module each, run through the product itself."""

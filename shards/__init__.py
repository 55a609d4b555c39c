"""Data at rest: image tars, the label store, recipes and views."""

"""softlabel: the import name of the five folders beside README.md (docs/decisions/0001)."""

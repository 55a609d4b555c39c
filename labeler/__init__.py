"""Run a teacher once over a collection and store what it says."""

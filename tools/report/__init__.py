"""Pieces of self-contained HTML reports: pages, figures, galleries."""

"""What a benchmark found: its document, tables, plots, pages, and comparisons of two runs."""

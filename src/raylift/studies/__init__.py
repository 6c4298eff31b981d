"""Each table and figure of the paper as a function: rows trained under one budget, scored alike, set side by side."""

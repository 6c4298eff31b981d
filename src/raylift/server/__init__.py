"""Reconstructions over HTTP: jobs that survive a restart, workers that may die, and a page to look at them."""

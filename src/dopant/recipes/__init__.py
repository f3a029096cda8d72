"""Recipes as data, and the one pipeline that walks from a text to a file and its row of a report."""

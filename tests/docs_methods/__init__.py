"""docs/methods.md: every row of the papers, the method that does it or why not, and the comparisons."""

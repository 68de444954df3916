"""Status for operators: one picture of the node, as a table, as JSON, as a page, as metrics. Reads only."""

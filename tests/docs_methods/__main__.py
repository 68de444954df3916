"""``python -m tests.docs_methods [SET=results.md …]``: write the tables of docs/methods.md."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.docs_methods.document import DOCUMENT, lowered, methods_table, rows_tables, with_part

text = DOCUMENT.read_text(encoding="utf-8")
text = with_part(with_part(text, "methods", methods_table()), "rows", rows_tables())
for name, _, path in (argument.partition("=") for argument in sys.argv[1:]):
    text = with_part(text, f"comparison {name}", lowered(Path(path).read_text(encoding="utf-8")))
DOCUMENT.write_text(text, encoding="utf-8")

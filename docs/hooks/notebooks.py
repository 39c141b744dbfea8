"""A committed notebook as a Markdown page: its text, its code, and the outputs that were saved with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def notebook_page(path: Path) -> str:
    """The notebook's cells as Markdown; pictures are data of the page itself."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [_output(output) for output in cell["outputs"]]
    return "\n\n".join(parts) + f"\n\n[Download this notebook]({path.name})\n"


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = output.get("data", {})
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            return f"![output](data:{kind};base64,{''.join(data[kind]).strip()})"
    if "text/markdown" in data:
        return "".join(data["text/markdown"])
    if "text/html" in data:
        return "".join(data["text/html"]).replace('<table border="1" class="dataframe">', "<table>")  # the theme's own
    return f"```text\n{''.join(data.get('text/plain', '')).rstrip()}\n```"

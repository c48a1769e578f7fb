"""Where the figures are kept."""

import json
import os

RESULTS = os.path.join(os.path.dirname(__file__), "results")


def write(name: str, content: object) -> str:
    """Writes figures as JSON and returns the file's path."""
    os.makedirs(RESULTS, exist_ok=True)
    path = os.path.join(RESULTS, f"{name}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    return path

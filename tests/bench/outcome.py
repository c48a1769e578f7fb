"""What rounds come to, and where the figures are kept."""

import json
import os
import statistics

RESULTS = os.path.join(os.path.dirname(__file__), "results")


def medians(taken: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Returns the median of each figure of each case's rounds."""
    return {
        name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        for name, rounds in taken.items()
    }


def write(name: str, content: object) -> str:
    """Writes figures as JSON and returns the file's path."""
    os.makedirs(RESULTS, exist_ok=True)
    path = os.path.join(RESULTS, f"{name}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    return path

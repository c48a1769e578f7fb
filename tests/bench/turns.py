"""Cases that take turns: A B C A B C …; a ratio is made of two neighbours in one round, and of those the median."""

import statistics
from collections.abc import Callable, Mapping

Figures = dict[str, float]


def taken(cases: Mapping[str, Callable[[], Figures]], rounds: int, show: str) -> dict[str, list[Figures]]:
    """Runs every case in every round and tells of it; `show` names the figure that a line begins with."""
    all_: dict[str, list[Figures]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, case in cases.items():
            figures = case()
            all_[name].append(figures)
            rest = "  ".join(f"{key} {value:.3f}" for key, value in figures.items() if key != show)
            print(f"round {number + 1}  {name:28} {show} {figures[show]:9.1f}  {rest}", flush=True)
    return all_


def summed(all_: Mapping[str, list[Figures]], of: str) -> dict[str, object]:
    """Returns rounds, medians, and the ratios of the figure `of`: each case over each other."""
    return {
        "rounds": all_,
        "medians": {
            name: {key: statistics.median(one[key] for one in figures) for key in figures[0]}
            for name, figures in all_.items()
        },
        "ratios": {
            name: {
                peer: statistics.median(ours[of] / theirs[of] for ours, theirs in zip(figures, all_[peer], strict=True))
                for peer in all_
            }
            for name, figures in all_.items()
        },
    }

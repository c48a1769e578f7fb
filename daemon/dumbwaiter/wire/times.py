"""Times as vendors write them: ISO 8601, with a zone or without."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo

from dumbwaiter.model import LATEST

BEIJING = timezone(timedelta(hours=8))


def moment(text: str | None, zone: tzinfo = UTC) -> float | None:
    """Returns the seconds since the epoch of a time, which is of `zone` where it names none; None for anything else."""
    try:
        found = datetime.fromisoformat(text or "")
        seconds = (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < LATEST else None

"""Who may write a file or folder besides its owner, by its mode."""

import grp
import os
import pwd
import stat


def others_may_write(status: os.stat_result) -> bool:
    """True when everybody may, or a group in which there is anybody but root and the owner."""
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and status.st_gid != 0 and not _is_private(status.st_gid, status.st_uid)


def _is_private(gid: int, uid: int) -> bool:
    """Says whether a group is the one that many systems make for each user."""
    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}

"""The daemon's one HTTP interface, for commands, mount, page and scripts."""

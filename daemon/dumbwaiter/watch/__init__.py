"""From a change in a watched folder to a job: what the kernel tells, what a scan finds, and when a file is whole."""

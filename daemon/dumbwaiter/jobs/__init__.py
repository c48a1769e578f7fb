"""From a job to a catalogued file: whose turn it is, one try of one job, and what is to be done once it ended."""

"""dumbwaiter with a vendor more: what its options are, and which broker they lead to."""

from dumbwaiter import brokers
from dumbwaiter.config import options
from made_up import locker

options.Provider |= locker.Options  # before the configuration's module reads it
brokers.BROKERS[locker.Options] = locker.Locker

if __name__ == "__main__":
    from dumbwaiter.cli import main

    main()

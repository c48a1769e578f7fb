"""A file whose content the provider has already, under another file's name: one object may stand for both."""

from functools import partial

from dumbwaiter.catalog import Catalog
from dumbwaiter.errors import Reject
from dumbwaiter.files.digest import Digest
from dumbwaiter.files.version import check
from dumbwaiter.jobs.context import Context
from dumbwaiter.jobs.threads import OpenFile
from dumbwaiter.model import Job, Receipt
from dumbwaiter.naming import shown
from dumbwaiter.providers.provider import Provider


async def find(job: Job, provider: Provider, file: OpenFile, context: Context) -> tuple[Receipt, str] | None:
    """Returns the receipt of such an object, if it still is there, and the digest of the content.

    Raises what reading the file raises, and a verdict of the network.
    """
    # What this very file has been sent as is sent again at somebody's word, or is not known to be whole.
    same = partial(Catalog(context.journal.reader).same, provider.name, job.size, job.place)
    digest, entries = await context.threads.read(
        file, lambda stopped: same(partial(Digest().finish, file.fd, job.size, stopped))
    )
    for entry in entries:
        try:
            receipt = await provider.broker.still(entry, provider)
        except Reject:  # of the question, which says nothing against this file
            continue
        if receipt is not None:
            await context.threads.read(file, lambda _: check(file.fd, job.stamp))
            return receipt.with_facts(same_as=shown(entry.place)), digest
    return None

"""The run's memory: every sample that was ever paid for, under the digest of what was asked.

One SQLite file, or some keys on a Redis server where workers run on several machines. A writer thread commits whatever
has gathered since the last commit in one transaction, so that an answer is on disk before it is used and a thousand
answers cost a few commits. Each sample has a checksum with its key, since neither store has one for what is older than
its log's tail: what is damaged is asked for again or ends the run, and never gives a text that no model wrote.

`journal.py` is what stages see, `store.py` what it asks of a store, `sqlite.py` and `redis.py` are the two of them.
"""

from pipelines.journal.address import PASSWORD_ENV, Address, Place, is_server, parse_address
from pipelines.journal.journal import Journal
from pipelines.journal.store import VERSION, JournalError

__all__ = ["PASSWORD_ENV", "VERSION", "Address", "Journal", "JournalError", "Place", "is_server", "parse_address"]

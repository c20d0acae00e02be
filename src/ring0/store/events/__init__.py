"""What the journal can say. One struct an event; projections are made from these.

A module a subject, which ends with the list of its events; `entries.py` says how they are stored.
"""

from ring0.store.events.approvals import *  # noqa: F403
from ring0.store.events.calls import *  # noqa: F403
from ring0.store.events.entries import *  # noqa: F403
from ring0.store.events.event import *  # noqa: F403
from ring0.store.events.kernel import *  # noqa: F403
from ring0.store.events.memory import *  # noqa: F403
from ring0.store.events.orders import *  # noqa: F403
from ring0.store.events.runs import *  # noqa: F403
from ring0.store.events.storage import *  # noqa: F403

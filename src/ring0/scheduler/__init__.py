"""Who goes next, and what stops. It decides, over values that are handed in; the kernel does.

`admission` gives a call its turn, over `queue` (fair, strict classes that age; its counters are in
`queue_accounts`, the order of those that wait in `queue_lanes`) and `buckets` (what a provider
takes a minute). `budgets` and `caps` say what may still be used, `locks` who holds a named
resource, `circles` who waits for whom. `loops`, `trees` and `noise` find runs that repeat
themselves, and `timetable` the moments at which crons are due. Each is imported by its name.
"""

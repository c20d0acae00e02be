"""The words that inference goes by: verbs of tools, names of arguments, nouns of what is read.

Data only, of no suite and no product: what English calls these things in tools of any field. A verb
that is in no list counts as one that changes something; an argument that is in none, as a target.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# --- verbs ---------------------------------------------------------------------------------------

READS: Final = _words(
    "get list read search find fetch lookup look query show view describe count check verify"
    " validate retrieve browse inspect preview summarize summarise compare calculate compute"
    " convert estimate translate analyze analyse explain is has exists can head peek tail grep ls"
    " cat stat download suggest recommend rank filter sort parse extract detect classify diff"
    " whoami see return display examine identify determine measure locate obtain"
    " info"
)

REMOVES: Final = _words(
    "delete remove cancel purge erase destroy drop trash clear empty wipe revoke terminate"
    " uninstall unshare unassign discard truncate detach deactivate expire void kick ban rm del"
    " unlink prune evict unsubscribe abort kill decommission unpublish dismiss unfollow unfriend"
    " disconnect deprovision deregister unregister"
)

CHANGES: Final = _words(
    "send write create update upsert insert add set put post patch edit modify change replace"
    " append prepend overwrite rename move copy upload share invite book reserve rent order buy"
    " purchase pay transfer wire refund charge donate withdraw deposit schedule reschedule submit"
    " approve reject accept decline merge push commit deploy release publish start stop restart"
    " reboot run execute exec eval invoke trigger enable disable activate assign reassign grant"
    " reply respond forward mail email message notify announce broadcast tweet call dial mark flag"
    " archive unarchive restore save store sync import export register subscribe follow join leave"
    " close open reopen resolve lock unlock attach tag label pin unpin star react comment make"
    " draft compose generate provision scale rotate reset issue sign checkout enroll hire promote"
    " demote transition link connect install configure apply submit request rsvp confirm complete"
    " fill click type press navigate increase decrease adjust log unmute mute turn toggle"
)

PLAIN_CHANGES: Final = _words(
    "delete remove send write create update insert modify overwrite destroy purge erase append"
)
"""Verbs that are hardly ever nouns: behind a verb that reads (`read_write_file`) they count too."""

CREATES: Final = _words(
    "create new make insert generate draft compose register open upload provision add write save"
    " schedule book"
)
"""What such a tool is given as a name is the new thing's own, and chooses nothing that is there."""

OUTGOING: Final = _words(
    "send mail email post publish share invite forward reply respond message notify announce tweet"
    " upload submit push transfer wire pay refund donate broadcast call dial text sms dm deliver"
    " dispatch export grant add assign transmit release deploy rsvp schedule remit payout"
)
"""They take something to somebody, or somebody to something."""

JOINING: Final = _words("and or then")

BEFORE_VERBS: Final = _words(
    "this tool function method it will to use used allows you can lets helps quickly securely"
    " automatically permanently"
)
"""A description may say these before its verb."""

# --- arguments: whole words of their names --------------------------------------------------------

RECIPIENTS: Final = _words(
    "to cc bcc recipient recipients receiver receivers addressee addressees attendee attendees"
    " participant participants invitee invitees guest guests payee payees beneficiary"
    " beneficiaries assignee assignees grantee grantees collaborator collaborators reviewer"
    " reviewers webhook callback destination destinations dest iban subscriber subscribers sharee"
    " audience creditor"
)
"""Whatever a tool does, these say to whom or where."""

PEOPLE: Final = _words(
    "user users username usernames login member members person people contact contacts customer"
    " client friend friends email emails mail mails phone phones mobile msisdn fax handle"
    " mention mentions manager owner owners employee principal account accounts wallet"
    " channel channels room rooms chat chats conversation thread group groups team teams topic"
    " queue address addresses endpoint inbox mailbox feed url urls uri uris link links href host"
    " hostname domain server site website remote registry bic swift vendor supplier merchant"
)
"""Of a tool that takes something somewhere, these say to whom or where; else, what it is about."""

PLACES: Final = _words("url urls uri uris href link links endpoint website webpage webhook")
"""What a tool that reads reaches out to."""

IDS: Final = _words(
    "id ids uuid guid uid key keys ref reference arn sku slug identifier identifiers number"
    " numbers no path paths file files filepath folder directory dir sha hash etag"
)

AMOUNTS: Final = _words(
    "amount amounts price prices total sum quantity qty units cost fee budget balance discount tip"
    " salary value credit debit percent percentage rate payment shares replicas seats nights"
)

CREDENTIALS: Final = _words(
    "password passwords passphrase passcode pin pins secret secrets token tokens credential"
    " credentials otp totp mfa cvv cvc pwd passwd apikey"
)

RIGHTS: Final = _words(
    "permission permissions role roles scope scopes privilege privileges acl policy policies"
    " visibility access grant grants"
)

CODE: Final = _words("command commands cmd script code shell program exec argv javascript python")

STATEMENTS: Final = _words("sql statement statements soql cypher cql hql")

CONTENT: Final = _words(
    "body text texts message messages content contents subject title titles description note notes"
    " comment comments html markdown caption summary details detail attachment attachments payload"
    " data headline heading reason memo bio snippet instructions prompt signature agenda greeting"
    " feedback review answer question alt blocks embeds excerpt"
)

NAMES: Final = _words("name names filename label labels tag tags nickname")
"""Of a new thing, content; of one that is there, what chooses it."""

WIDEST: Final = _words(
    "all every everything everyone everybody any anyone anybody public world external global"
)

WIDENING: Final = WIDEST | _words(
    "each recursive recursively force forced permanent permanently hard purge delete remove"
    " overwrite replace publish shared share anonymous broadcast cascade wipe admin sudo root"
    " unrestricted bypass skip ignore override approve approved confirm confirmed trusted bulk"
)
"""A yes or no of such a name is no setting: it takes more, lets more in, or leaves a check out."""

TIMES: Final = _words(
    "date dates time times start end day days month year when at due deadline until since before"
    " after timezone tz duration hour hours minute minutes second seconds reminder reminders"
    " schedule expires expiry expiration recurrence recurring frequency interval rrule weeks"
    " checkin"
)

HARMLESS: Final = _words(
    "limit offset page cursor per count n max min top sort direction format language lang locale"
    " currency unit verbose fields include exclude type kind category priority severity status"
    " state color colour emoji silent dry preview timeout retries encoding mime reaction rating"
    " theme width height quality importance position location place venue mode idempotency"
    " temperature draft notify transparency"
)
"""They say how, not what or whom. A place where people meet is one: nothing goes there."""

# --- what is read ---------------------------------------------------------------------------------

PUBLIC: Final = _words(
    "weather forecast web internet news wikipedia time date clock timezone exchange currency stock"
    " stocks quote holidays dictionary translation docs documentation public geocode map maps"
    " hotel hotels restaurant restaurants flight flights train trains museum museums price prices"
    " rating ratings catalog catalogue product products"
)

PRIVATE: Final = _words(
    "mail mails email emails inbox message messages chat chats dm conversation contact contacts"
    " calendar event events appointment appointments file files document documents drive note notes"
    " account accounts balance transaction transactions iban payment payments card cards invoice"
    " invoices customer customers user users profile profiles employee employees patient patients"
    " record records order orders booking bookings reservation reservations ticket tickets channel"
    " channels thread threads task tasks issue issues repo repository database table row rows"
    " address phone salary bill bills subscription subscriptions"
)

SECRET: Final = _words(
    "password passwords passphrase secret secrets credential credentials token tokens otp totp"
    " passcode apikey pin"
)

CLOCK: Final = _words("date time day datetime timestamp clock today now")
CLOCK_BESIDE: Final = _words("current now today get what is the utc local in tell date time day")
"""A tool of whose name all words are of these two gives the time, and nobody writes that."""

OPEN_WORLD: Final = _words(
    "web webpage website url uri internet http https html rss feed scrape crawl browse page"
)
PARSED: Final = _words("json csv xml yaml parse sql query execute exec run eval script code shell")
"""What such a tool returns has the shape that somebody wrote: its keys vouch for nothing."""

# --- fields of results ----------------------------------------------------------------------------

OWN_FIELDS: Final = (
    "id",
    "id_",
    "uuid",
    "size",
    "size_bytes",
    "created_at",
    "createdAt",
    "updated_at",
    "updatedAt",
    "last_modified",
    "lastModified",
    "modified_at",
    "received_at",
)
"""What the system behind a tool gives each of its records, and no third party can choose. Not: a
sender, a name, a title, a date, an amount, an address: an attacker's own e-mail has the attacker's
as its sender, and says so truly."""

"""Lists of English words that the rules on flows know. They hold of every domain, and of none.

What is in no list here is taken for a name.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COMMON: Final = _words(
    """
    a about above add after again all also am an and any are as at be because been before being
    below between both but by can could create delete did do does doing done down during each
    every few first following for from further get give had has have having he her here hers him
    his how i if in into is it its just kindly last let like make many me mine more most much must
    my need new next no nor not now of off ok on once one only or other our out over own per
    please read same send she should show so some such tell than thank thanks that the their them
    then there these they this those through to too two under until up update us use very via want
    was we were what when where which while who whom why will with would yes yet you your re fwd fw
    """
)
"""Words that name nothing."""

GENERIC: Final = _words(
    """
    account address app article attachment body booking calendar call channel comment contact
    content copy customer data database date day description detail document draft drive email
    entry event field file folder group history id inbox info information invoice issue item job
    key link list mail meeting member message month name note notice number order page payment
    person phone post project query record reminder repo repository report request response result
    role row service status subject summary table task team text thing ticket time title
    transaction transfer true false unread url user version week year
    """
)
"""Words that name a kind of thing: alone, they choose none."""

VERBS: Final = tuple(
    _words(line)
    for line in """
    send email mail message write reply respond answer forward share tell notify inform text dm ping
        contact announce invite ask remind let say submit give deliver report
    post publish announce tweet share write send submit comment reply message say upload
    pay send transfer refund reimburse wire settle charge repay return owe compensate donate tip buy
        purchase order money remit issue payment payout transaction
    delete remove cancel clear drop trash erase purge discard empty clean destroy deactivate unset
        terminate uninstall rid unsubscribe prune wipe void
    revoke remove cancel withdraw disable block deny kick ban uninvite unshare take
    cancel call delete remove abort stop void revoke drop end
    create add make new write generate schedule register open set put insert save file draft record
        start plan build compose prepare log arrange organize organise enter note append provision
    add invite include append attach put insert join write create register assign enter save
        upload enroll subscribe
    append add write put insert extend include
    book reserve schedule make arrange get order rent buy plan find organize organise
    schedule book arrange plan set create put recurring standing later organize organise
    update change edit modify set adjust correct fix rename alter amend raise increase reduce lower
        move refresh mark replace switch upgrade revise put patch make tweak reset rotate
    reschedule move postpone delay shift change push bring update delay schedule
    move transfer relocate put shift file archive rename drag sort
    share send give grant invite show access permission forward
    grant give allow add permit invite share make authorize authorise assign let
    invite add ask include bring send onboard
    buy purchase order get shop pay
    merge combine join close integrate squash land
    close resolve complete finish end done solve shut
    deploy release ship publish launch roll push promote
    restart reboot start stop relaunch reset bounce
    scale resize increase reduce grow shrink add raise lower
    run execute start launch trigger test invoke perform
    upload put send save store add post
    copy duplicate clone back backup
    assign give reassign hand delegate route set
    approve accept confirm sign ok agree
    reject decline refuse deny turn
    subscribe join follow sign register
    enable activate turn switch start
    disable deactivate turn switch stop suspend pause
    """.strip()
    .replace("\n        ", " ")
    .splitlines()
)
"""Verbs of like meaning, and things that come with them, a class a line."""

DOING: Final = frozenset[str]().union(*VERBS)
"""All of them."""

LIGHT: Final = _words(
    "make do perform execute process initiate issue submit handle add create post send put open new"
)
"""Verbs that say little: what is made, done or sent says it too (`add_comment`: to comment)."""

SENSITIVE: Final = _words(
    """
    password passcode passphrase pin secret token credential key otp mfa 2fa login permission role
    admin owner privilege policy security
    """
)
"""What is never changed on the word of a verb alone: the words have to speak of it."""

CREDENTIALS: Final = _words(
    "password passcode passphrase pin secret token credential otp mfa 2fa apikey"
)
"""In the name of an argument: what somebody gets in with."""

SAME: Final = {"passwd": "password", "pwd": "password", "passphrases": "passphrase"}

LOOKING: Final = _words(
    "all browse by day find fetch get list look lookup query read search show view visit"
)
"""In the name of a tool: what says nothing of what it returns."""

LINKS: Final = _words("link url page website site webpage article address homepage blog web")
"""How a user speaks of something that has an address."""
ADDRESSES: Final = _words("url uri link host hostname domain site website endpoint page")
"""In the name of an argument that is one."""
IDS: Final = _words("id uuid key number no ref reference code slug handle name new target list")
"""In the name of an argument: what says nothing of what it is an id of."""
COUNTS: Final = _words("limit n count max size top number first last page per num")
"""In the name of an argument that says how many are to be listed."""

SPARING: Final = _words("never not don doesn mustn shouldn except keep without unless besides nor")
"""What takes away from what is said after it (`don't` is two words)."""

SELECTING: Final = _words(
    """
    largest biggest heaviest highest greatest maximum longest smallest tiniest lightest lowest least
    minimum shortest cheapest dearest priciest best top worst latest newest last oldest earliest
    first most recent expensive second third fourth fifth
    """
)
"""What selects one of many."""

SIZES: Final = _words("size bytes byte length space weight area volume count quantity")
TIMES: Final = _words(
    """
    date time timestamp created updated modified changed sent received added due start end deadline
    expires expiry published posted at on day when
    """
)
MONEY: Final = _words("price cost amount total fee sum value rate balance charge")
MARKS: Final = _words("rating rank score star priority vote review")
AMOUNTS: Final = SIZES | MONEY | _words("number distance duration")
LENGTHS: Final = _words("length duration distance")
"""In the names of fields that a superlative can be by."""

PLUS: Final = _words(
    """
    plus add additional additionally extra increase increased raise raised more tip surcharge and
    fee together total sum altogether combined including
    """
)
MINUS: Final = _words(
    """
    minus less difference reduce reduced decrease decreased discount remaining remainder rest left
    deduct subtract lower back off
    """
)
SPLIT: Final = _words("split share divide divided shared half halves equally each per")
ALL: Final = _words("total sum altogether combined together all")
MEAN: Final = _words("average mean")
MULTIPLY: Final = _words("times multiplied x each per")
"""What says that something is to be computed."""

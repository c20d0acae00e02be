"""Letters that look like a Latin one: data, for matching only.

`LOOK_ALIKES` is from Unicode's confusables.txt (UTS #39, by way of the package
confusable-homoglyphs 3.3): of the Cyrillic, Greek, Armenian, Cherokee, Coptic, Lisu and Latin
letters those that it gives as one ASCII letter and that NFKD leaves as they are. What it gives as
`l` and is a capital iota or palochka is an I here. `ALSO` is ours: what is used in place of a
letter though it looks less alike.
"""

from __future__ import annotations

from typing import Final

LOOK_ALIKES: Final = {
    "A": "ΑАᎪꓮ",
    "B": "ΒВᏴꓐꞴ",
    "C": "ϹСᏟⲤꓚ",
    "D": "Ꭰꓓ",
    "E": "ΕЕᎬꓰ",
    "F": "ϜꓝꞘ𝈓",
    "G": "ԌᏀᏳꓖ",
    "H": "ΗНᎻⲎꓧ",
    "I": "ƖǀΙІӀⲒꓲ",
    "J": "ͿЈᎫꓙꞲ",
    "K": "ΚКᏦⲔꓗ",
    "L": "ᏞⳐꓡ𝈪",
    "M": "ΜϺМᎷⲘꓟ",
    "N": "ΝⲚꓠ",
    "O": "ΟОՕⲞꓳ",
    "P": "ΡРᏢⲢꓑ",
    "R": "ƦᎡᏒꓣ𝈖",
    "S": "ЅՏᏕᏚꓢ",
    "T": "ΤТᎢⲦꓔ",
    "U": "Սꓴ",
    "V": "ѴᏙꓦ𝈍",
    "W": "ԜᎳᏔꓪ",
    "X": "ΧХⲬꓫꞳ",
    "Y": "ΥϒУҮᎩᎽⲨꓬ",
    "Z": "ΖᏃꓜ𐋵",
    "a": "ɑαа",
    "b": "ƄЬᏏ",
    "c": "ϲсᴄⲥꮯ",
    "d": "ԁᏧꓒ",
    "e": "еҽꬲ",
    "f": "քẝꞙꬵ",
    "g": "ƍɡցᶃ",
    "h": "һհᏂ",
    "i": "ıɩɪͺιіӏᎥιꙇꭵ",
    "j": "ϳј",
    "n": "ոռ",
    "o": "οσоօᴏᴑⲟꬽ",
    "p": "ρϱрⲣ",
    "q": "ԛգզ",
    "r": "гᴦⲅꭇꭈꮁ",
    "s": "ƽѕꜱꮪ",
    "u": "ʋυսᴜꞟꭎꭒ",
    "v": "νѵᴠꮩ",
    "w": "ɯѡԝաᴡꮃ",
    "x": "х",
    "y": "ɣʏγуүᶌỿꭚ",
    "z": "ᴢꮓ",
}
"""ASCII letter to what looks like it."""

ALSO: Final = {
    "A": "Λ",
    "a": "ᴀ",
    "b": "ʙвβ",
    "d": "ᴅđ",
    "e": "ᴇəεɛ",
    "f": "ꜰƒ",
    "g": "ɢ",
    "h": "ʜħн",
    "j": "ᴊ",
    "k": "ᴋкκĸ",
    "l": "ʟł",
    "m": "ᴍм",
    "n": "ɴηп",
    "o": "ø",
    "p": "ᴘ",
    "q": "ꞯǫ",
    "r": "ʀ",
    "t": "ᴛтτŧ",
    "u": "μ",
    "w": "ω",
    "x": "χ",
    "ae": "æ",
    "oe": "œ",
    "ss": "ß",
    "-": "‐‑‒–−",
    "/": "⁄∕",
    ".": "․",
}

LETTER_ROWS: Final = (0x1F110, 0x1F130, 0x1F150, 0x1F170, 0x1F1E6)
"""Where rows of 26 letters begin, in brackets, squares, circles and flags."""

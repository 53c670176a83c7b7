"""The formats of texts that JSON schema defines, as expressions.

Every text of an expression has the format, but not every text with the format is one of the expression: quoted e-mail
addresses, leap seconds and numbers of Internet addresses in other notations are left out. Formats that are not listed
here are annotations.
"""

from __future__ import annotations

from functools import lru_cache

from mlx_diffgemma.constraint.expression import Expression
from mlx_diffgemma.constraint.patterns.pattern import PYTHON, whole_match

_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_UP_TO_255 = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_UP_TO_255}(?:\.{_UP_TO_255}){{3}}"
_HEX = "[0-9A-Fa-f]{1,4}"
_IPV6 = "|".join(
    [f"(?:{_HEX}:){{7}}{_HEX}", f"::(?:{_HEX}(?::{_HEX}){{0,5}})?", f"{_HEX}(?::{_HEX}){{0,5}}::"]
    # A run of zeros in the middle: so many groups before it, and so many after it that there are at most seven.
    + [f"{_HEX}(?::{_HEX}){{{before}}}::{_HEX}(?::{_HEX}){{0,{4 - before}}}" for before in range(5)]
)
_LABEL = "[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_HOST = rf"(?:{_LABEL}\.)*[A-Za-z]+"
_SHORT_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
_HOST_NAME = rf"(?:{_SHORT_LABEL}\.){{0,4}}[A-Za-z]{{1,30}}"
_EMAIL = rf"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@(?:{_LABEL}\.)+[A-Za-z]{{2,}}"
_PATH_CHARACTER = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_REST = rf"(?:\?(?:{_PATH_CHARACTER}|[/?])*)?(?:#(?:{_PATH_CHARACTER}|[/?])*)?"
_URI = rf"[a-z][a-z0-9+.-]*:(?://{_HOST}(?::[1-9][0-9]{{0,3}})?(?:/{_PATH_CHARACTER}*)*|{_PATH_CHARACTER}+){_REST}"
_SEGMENT = "(?:[A-Za-z0-9._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})"
_REFERENCE = rf"{_URI}|/?{_SEGMENT}+(?:/{_PATH_CHARACTER}*)*{_REST}|#{_PATH_CHARACTER}*"
_DURATION = "P(?:[0-9]+W|(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)(?:T{time})?|T{time})".replace(
    "{time}", "(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
)
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": _DURATION,
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    **dict.fromkeys(("email", "idn-email"), _EMAIL),
    **dict.fromkeys(("ipv4", "ip-address"), _IPV4),
    "ipv6": _IPV6,
    **dict.fromkeys(("hostname", "idn-hostname", "host-name"), _HOST_NAME),
    **dict.fromkeys(("uri", "iri", "url"), _URI),
    **dict.fromkeys(("uri-reference", "iri-reference", "uri-template"), _REFERENCE),
    "json-pointer": "(?:/(?:[A-Za-z0-9._-]|~[01])*)*",
    "relative-json-pointer": "(?:0|[1-9][0-9]*)(?:#|(?:/(?:[A-Za-z0-9._-]|~[01])*)*)",
    "regex": r"\^?(?:[A-Za-z0-9 _-]|\\[dws.]|\[[a-m]-[n-z]\][+*?]?)*\$?",
}


@lru_cache
def format_expression(name: str) -> Expression | None:
    """Return an expression of texts with a format; None for a format that is an annotation."""
    pattern = _FORMATS.get(name)
    return None if pattern is None else whole_match(pattern, PYTHON)

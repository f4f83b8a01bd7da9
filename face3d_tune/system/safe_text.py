"""Text that is safe to show: without passwords, and short enough to read. Pure, but for the learnt secrets."""

import re
import unicodedata
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"

_LONGEST_WORD, _LONGEST = 500, 4000  # characters
_TOKEN = 6  # characters of a part of a service's URL from which it may be a token
_WITH_HOST = re.compile(r"https?|jsons?|forms?|xmls?|mailtos?")  # schemes of services; in others a token may be there
_NOT_IN_A_LINE = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, ends of lines
_BETWEEN_LETTERS = ("Zs", "Cf")  # spaces; what an alphabet or an emoji needs
_TURNS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # turn the direction of the text after them
_WHOLE = 12  # characters from which a secret is removed even from the middle of a word
# Keys in the query part of a URL whose values may be shown; a mistyped `pasword` is not among them.
_HARMLESS = frozenset(
    re.findall(
        r"\w+",
        """
        host hostaddr port user dbname application_name fallback_application_name client_encoding options service
        connect_timeout target_session_attrs load_balance_hosts keepalives keepalives_idle keepalives_interval
        keepalives_count tcp_user_timeout sslmode sslnegotiation sslrootcert sslcert sslkey sslcrl sslcrldir sslsni
        gssencmode krbsrvname channel_binding require_auth passfile mode uri cache nolock immutable vfs timeout
        """,
    )
)
_PASSWORD_IN_URL = re.compile(r"((?<![\w+.-])\w[\w+.-]*://[^\s:/@?#'\"]*:)(?!PASSWORD@)[^\s'\"]*@")

_secrets: set[str] = set()


def secret_part(url: str) -> tuple[int, int] | None:
    """Return where a URL's password is: from the first colon after `://` to the last `@`, however odd it is."""
    start = url.find("://") + len("://")
    colon, end = url.find(":", start), url.rfind("@")
    return (colon + 1, end) if start >= len("://") and -1 < colon < end else None


def masked(url: str) -> str:
    """Mask a URL: `***` for the password, and for a query with any value that may be a password."""
    if part := secret_part(url):
        url = url[: part[0]] + HIDDEN + url[part[1] :]
    head, mark, query = url.partition("?")
    return head + mark + (query if _is_harmless(query) else HIDDEN)


def _is_harmless(query: str) -> bool:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return all(mark and unquote_plus(key).lower() in _HARMLESS for key, mark, _ in pairs)


def learn_url(url: str) -> None:
    """Remember the secrets in a URL; `redact` removes them from now on."""
    if "://" not in url:
        return
    secrets, part, first = [], secret_part(url), url.find("?")
    if part:
        secrets.append(url[slice(*part)])
    query = url[part[1] if part and first >= part[0] else 0 :].partition("?")[2]  # a password may hold a ? too
    if not _is_harmless(query):
        pairs = [pair.partition("=") for pair in query.split("&")]
        secrets += [value if mark else key for key, mark, value in pairs if unquote_plus(key).lower() not in _HARMLESS]
    words = re.split(r"\W+", masked(url))  # a user whose password is his name may still see the name
    for secret in secrets:
        if secret not in words:
            learn(secret)


def service(url: str) -> str:
    """Return a service's URL as it may be shown: its scheme, since all the rest may be a token."""
    return f"{url.partition('://')[0][:20]}://{HIDDEN}" if "://" in url else HIDDEN


def learn_service(url: str) -> None:
    """Remember what may be a secret in the URL of a service that takes messages; `redact` removes it from now on."""
    scheme, mark, rest = url.strip().partition("://")
    rest = rest if mark else scheme
    learn_url(url)
    learn(rest)
    host = re.split(r"[/?#]", rest.rpartition("@")[2])[0] if _WITH_HOST.fullmatch(scheme.lower()) else ""
    for piece in re.split(r"[/:@?&=#,]", rest.replace(host, "/", 1) if host else rest):
        if len(piece) >= _TOKEN and not re.fullmatch("[a-z]{,10}", piece):  # which is a word
            learn(piece)


def learn(secret: str) -> None:
    """Remember a secret in every form in which a program may repeat it."""
    for form in {secret, unquote(secret), unquote_plus(secret)}:
        if form.strip() and form != HIDDEN:
            typed = form.encode(errors="surrogatepass")  # not all text that is typed is Unicode
            _secrets.update((form, repr(form)[1:-1], quote(typed, safe=""), quote(typed, safe=" +"), quote_plus(typed)))


def forget() -> None:
    """Forget every secret before another command begins."""
    _secrets.clear()


def redact(text: str) -> str:
    """Return the text without the known secrets, and without the password of any URL in it."""
    for secret in sorted(_secrets, key=len, reverse=True):
        if len(secret) < _WHOLE and re.fullmatch(r"\w+", secret):
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)  # not the a of a password "a" in "cat"
        else:
            text = text.replace(secret, HIDDEN)
    return _PASSWORD_IN_URL.sub(rf"\1{HIDDEN}@", text)


def shorten(text: str) -> str:
    """Shorten words, and then the whole text, by cutting out their middle."""
    text = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", lambda word: _cut(word[0], _LONGEST_WORD), text)
    return _cut(text, _LONGEST)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 4 :]}"


def safe(text: str) -> str:
    """Return text that is safe to show: redacted, each line shortened."""
    return "\n".join(map(shorten, redact(text).split("\n")))


def fits_a_line(name: str) -> bool:
    """Tell whether a line can show every character of a name."""
    return not any(unicodedata.category(each) in _NOT_IN_A_LINE for each in name)


def visible(text: str, keep: str = "") -> str:
    r"""Return text in which characters that no line can show stand as Python writes them, but for those of `keep`.

    A line break is `\n` then, and an escape sequence moves no cursor of a terminal.
    """
    return text if text.isprintable() else "".join(each if each in keep else _shown(each) for each in text)


def _shown(letter: str) -> str:
    between = unicodedata.category(letter) in _BETWEEN_LETTERS and not _TURNS.match(letter)
    return letter if between or letter.isprintable() else repr(letter)[1:-1]

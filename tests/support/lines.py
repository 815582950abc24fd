"""CEF, LEEF and RFC 5424 read by what their standards say, apart from what writes them. Anything else is an error."""

import re
from collections.abc import Iterator

__all__ = ["parse_cef", "parse_leef", "parse_syslog", "unframed"]


def parse_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """The seven header fields, version first, and the pairs."""
    assert line.startswith("CEF:")
    parts = _divided(line.removeprefix("CEF:"), "|", 7)
    header = [_unescaped(part, {"\\": "\\", "|": "|"}) for part in parts[:7]]
    return header, dict(_cef_pairs(parts[7]))


def _divided(text: str, at: str, times: int) -> list[str]:
    """At the first so many marks that no backslash escapes."""
    parts, start, place = [], 0, 0
    while place < len(text) and len(parts) < times:
        if text[place] == "\\":
            place += 1
        elif text[place] == at:
            parts.append(text[start:place])
            start = place + 1
        place += 1
    assert len(parts) == times, f"{times} `{at}` in {text!r}"
    return [*parts, text[start:]]


def _unescaped(text: str, escapes: dict[str, str]) -> str:
    """An escape that the standard does not know is an error."""
    letters = iter(text)
    return "".join(escapes[next(letters)] if letter == "\\" else letter for letter in letters)


def _cef_pairs(text: str) -> Iterator[tuple[str, str]]:
    """A key begins the text or follows a space, and ends at a `=` that nothing escapes; a value, before the next."""
    keys = list(re.finditer(r"(?:^| )([A-Za-z0-9]+)=", text))
    assert keys[0].start() == 0
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        value = text[key.end() : following.start() if following else len(text)]
        assert not re.search(r"(?<!\\)(?:\\\\)*=", value), f"unescaped `=` in {value!r}"
        yield key[1], _unescaped(value, {"\\": "\\", "=": "=", "n": "\n", "r": "\r"})


def parse_leef(line: str) -> tuple[list[str], dict[str, str]]:
    """Version, vendor, product, product's version, event; and the pairs by the delimiter that the header declares."""
    assert line.startswith("LEEF:")
    *header, delimiter, body = line.removeprefix("LEEF:").split("|", 6)
    assert len(header) == 5
    mark = chr(int(delimiter[1:], 16)) if re.fullmatch(r"0?x[0-9A-Fa-f]{2,4}", delimiter) else delimiter
    assert len(mark) == 1
    pairs = [pair.split("=", 1) for pair in body.split(mark)]
    assert all(re.fullmatch(r"[A-Za-z]+", key) for key, _ in pairs)
    found = dict(pairs)
    assert len(found) == len(pairs), "a key twice"
    return header, found


def unframed(stream: bytes) -> Iterator[bytes]:
    """RFC 6587, 3.4.1: MSG-LEN SP SYSLOG-MSG, again and again."""
    while stream:
        length, _, rest = stream.partition(b" ")
        assert re.fullmatch(rb"[1-9][0-9]*", length)
        yield rest[: int(length)]
        assert len(rest) >= int(length)
        stream = rest[int(length) :]


_MESSAGE = re.compile(
    rb"<(?P<priority>[0-9]{1,3})>1"
    rb" (?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{1,6}Z)"
    rb" (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) (?P<id>[!-~]{1,32})"
    rb' \[origin(?P<data>(?: [!-~]{1,32}="(?:\\["\\\]]|[^"\\\]])*")*)\]'
    rb"(?: (?P<text>.*))?",
    re.DOTALL,
)


def parse_syslog(message: bytes) -> tuple[int, list[str], dict[str, str], str]:
    """RFC 5424, section 6: priority; time, host, application, process, message id; the one element's data; the text."""
    found = _MESSAGE.fullmatch(message)
    assert found, f"no RFC 5424 message: {message!r:.200}"
    fields = [found[name].decode("ascii") for name in ("time", "host", "app", "process", "id")]
    pairs = re.findall(r' ([^ =]+)="((?:\\.|[^"\\])*)"', found["data"].decode())
    data = {name: _unescaped(value, {'"': '"', "\\": "\\", "]": "]"}) for name, value in pairs}
    return int(found["priority"]), fields, data, (found["text"] or b"").decode()

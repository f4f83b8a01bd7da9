"""The output of a script as text: UTF-8, and GB18030 in lines that are not, as programs on a Chinese Windows print."""

_LONGEST = 64 * 1024  # bytes of a line; the rest of a longer one counts as the next


class OutputText:
    """Bytes to text, line by line. The end of what has come waits for the rest of its line."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, data: bytes) -> str:
        """Return the text of the lines that are whole now; a carriage return ends a line as well."""
        data = self._rest + data
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if len(data) - end > _LONGEST:
            end = len(data)
        self._rest = data[end:]
        return _decoded(data[:end])

    def end(self) -> str:
        """Return the text that no line end followed."""
        rest, self._rest = self._rest, b""
        return _decoded(rest)


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "".join(map(_line, data.splitlines(keepends=True)))


def _line(line: bytes) -> str:
    for encoding in ("utf-8", "gb18030"):
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            pass
    return line.decode(errors="replace")

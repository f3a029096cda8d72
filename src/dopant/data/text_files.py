"""Text from files: decoded strictly, found in a folder under the usual names, or cut into three splits."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from dopant.errors import InputError, did_you_mean

SPLITS = ("train", "valid", "test")
"""The names of a corpus's splits, as fields and as command-line values."""

ALIASES = {"train": ("train",), "valid": ("valid", "validation", "val", "dev"), "test": ("test",)}
"""The names a split goes by in file names."""

PATTERNS = ("{}", "{}.txt", "{}.tokens", "{}.raw", "ptb.{}.txt", "wiki.{}.tokens", "wiki.{}.raw")
"""What is put around such a name: plain, Penn Treebank's and WikiText's."""

TWENTIETHS = 20
MANY_PIECES, FEW_PIECES = 10 * TWENTIETHS, TWENTIETHS


def nearest(name: str, known: list[str]) -> str:
    """`; did you mean 'x'?` for the nearest of `known`, or nothing."""
    found = did_you_mean(name, known)
    return f"; {found}" if found else ""


def read_text(path: Path) -> str:
    """The text of a file, with line ends made `\\n` and a byte order mark dropped.

    Raises:
        InputError: missing, a folder or a device, unreadable, empty, binary, or not UTF-8.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; a text file is needed here")
        if not path.exists():
            raise InputError(f"there is no file {path}{nearest(path.name, siblings(path))}")
        if not path.is_file():
            raise InputError(f"{path} is not a regular file; copy the text into one first")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from error
    if not data:
        raise InputError(f"{path} is empty; text is needed")
    return decode_text(data, str(path))


def decode_text(data: bytes, name: str) -> str:
    """UTF-8 bytes to text; `name` is used in messages.

    Raises:
        InputError: UTF-16, a NUL byte, bytes that are not UTF-8, or nothing but whitespace.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{name} begins with a UTF-16 mark; UTF-8 is needed: iconv -f UTF-16 -t UTF-8")
    nul = data.find(b"\0")
    if nul >= 0:
        raise InputError(f"{name} is binary: it holds a NUL at byte {nul}; plain UTF-8 text is needed")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x} ({error.reason}); "
            "convert the text, for instance: iconv -f LATIN1 -t UTF-8"
        ) from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise InputError(f"{name} holds only whitespace; text is needed")
    return text


def siblings(path: Path) -> list[str]:
    """The names beside `path`, or nothing where they cannot be listed."""
    try:
        return sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return []


def find_splits(folder: Path) -> dict[str, Path]:
    """The file of each split in a folder, by the names of `ALIASES` and `PATTERNS`.

    Raises:
        InputError: a split has no file, or more than one.
    """
    try:
        present = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise InputError(f"folder {folder} cannot be listed: {error.strerror or error}") from error
    found: dict[str, Path] = {}
    for split in SPLITS:
        names = [pattern.format(alias) for alias in ALIASES[split] for pattern in PATTERNS]
        matches = [name for name in names if name in present]
        # A folder called `train` beside `train.txt` does no harm; alone it is worth its own message.
        files = [name for name in matches if not (folder / name).is_dir()] or matches
        if not files:
            raise InputError(_missing_split(folder, split, names, present))
        if len(files) > 1:
            raise InputError(
                f"{folder} holds {len(files)} files for the {split} split: {', '.join(files)}; "
                "keep one of them there, or link the ones that are meant into a folder of their own"
            )
        found[split] = folder / files[0]
    return found


def _missing_split(folder: Path, split: str, names: list[str], present: list[str]) -> str:
    listed = ", ".join(present[:10]) + (", …" if len(present) > 10 else "") if present else "nothing"
    return f"{folder} has no {split} split: looked for {', '.join(names)}; found {listed}" + (
        nearest(f"{split}.txt", present) or ". A single text file would be split for you"
    )


def cut_text(text: str, name: str) -> dict[str, str]:
    """One text to three splits of about 90, 5 and 5 percent, the same ones every time.

    The text is cut into 200 pieces of nearly equal length (20 where it has fewer than 2,000 lines); of each 20
    in a row the tenth goes to `valid`, the twentieth to `test`, the others to `train`, in the order of the
    text. Pieces end where lines end; a text with too few lines for that is cut at its spaces.

    Raises:
        InputError: the text is too short, or a split would be blank.
    """
    pieces = _pieces(text)
    if pieces is None:
        raise InputError(
            f"{name} is too short to be split: {len(text.splitlines())} lines, {len(text.split())} words; "
            f"at least {TWENTIETHS} lines or words of like length are needed, "
            "or a folder with train, valid and test"
        )
    train = [piece for i, piece in enumerate(pieces) if i % TWENTIETHS not in (9, 19)]
    valid, test = pieces[9::TWENTIETHS], pieces[19::TWENTIETHS]
    return {"train": "".join(train), "valid": "".join(valid), "test": "".join(test)}


def _pieces(text: str) -> list[str] | None:
    for separator in ("\n", " "):
        for count, least in ((MANY_PIECES, 10 * MANY_PIECES), (FEW_PIECES, FEW_PIECES - 1)):
            if text.count(separator) < least:
                continue
            # find() is one past -1, that is 0, where no separator is left: the cuts then no longer rise
            places = [max(1, i * len(text) // count) for i in range(1, count)]
            cuts = [text.find(separator, place - 1) + 1 for place in places]
            cuts = [0, *cuts, len(text)]
            if all(low < high for low, high in pairwise(cuts)):
                return [text[low:high] for low, high in pairwise(cuts)]
    return None

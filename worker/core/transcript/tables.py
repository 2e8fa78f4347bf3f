"""The two CSV files that the pipeline reads with pandas: CRLF, UTF-8, seconds with three decimals."""

import csv
import io
from collections.abc import Iterable, Sequence

from schemas.speech import Word
from worker.core.transcript.paragraphs import Paragraph
from worker.core.transcript.spelling import raw_word

# Values that pandas.read_csv takes for missing by default (pandas 0.25 to 3.1).
READ_AS_MISSING = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip


def words_csv(words: Sequence[Word]) -> bytes:
    """Render `start_time,end_time,word`, one row per word; `word` is spelled like Deepgram's raw `word`."""
    rows = ((_time(word.start_seconds), _time(word.end_seconds), legible(raw_word(word.text))) for word in words)
    return _table(("start_time", "end_time", "word"), rows)


def paragraphs_csv(paragraphs: Sequence[Paragraph]) -> bytes:
    """Render `start_time,end_time,text`, one row per paragraph."""
    rows = ((_time(one.start_seconds), _time(one.end_seconds), legible(one.text)) for one in paragraphs)
    return _table(("start_time", "end_time", "text"), rows)


def legible(text: str) -> str:
    """Return the text, with a full stop appended where a CSV reader would otherwise take it for missing.

    Readers ignore quotes when they look for missing values, so quoting does not help.
    """
    return f"{text}." if text in READ_AS_MISSING else text


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()

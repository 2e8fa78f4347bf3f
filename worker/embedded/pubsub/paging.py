"""Pages of a listing."""

from collections.abc import Iterable

_DEFAULT_PAGE = 100


def page_of(names: Iterable[str], page_size: int, page_token: str) -> tuple[list[str], str]:
    """The names of the page after the token, in order, and the token of the next page: empty on the last one."""
    rest = sorted(name for name in names if name > page_token)
    page = rest[: page_size or _DEFAULT_PAGE]
    return page, page[-1] if len(page) < len(rest) else ""

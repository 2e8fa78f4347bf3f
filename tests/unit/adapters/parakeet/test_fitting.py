import pytest

torch = pytest.importorskip("torch")


@pytest.fixture
def tried() -> list[int]:
    return []


@pytest.mark.parametrize(("rows_that_fit", "tries"), [(8, [8]), (5, [8, 4]), (1, [8, 4, 2, 1])])
def test_rows_are_halved_until_they_fit(tried: list[int], rows_that_fit: int, tries: list[int]) -> None:
    from worker.adapters.parakeet.inference import fitting  # noqa: PLC0415  needs torch

    def run(rows: int) -> str:
        tried.append(rows)
        if rows > rows_that_fit:
            raise torch.OutOfMemoryError
        return "done"

    assert fitting(run, 8) == ("done", tries[-1])
    assert tried == tries


def test_one_row_that_does_not_fit_is_an_error(tried: list[int]) -> None:
    from worker.adapters.parakeet.inference import fitting  # noqa: PLC0415  needs torch

    def run(rows: int) -> None:
        tried.append(rows)
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        fitting(run, 2)
    assert tried == [2, 1]

"""Work on parts, one to a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from targetprop.threads import side_by_side


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


def test_results_come_in_order(threads: int) -> None:
    assert side_by_side(lambda part: part**2, range(7)) == [0, 1, 4, 9, 16, 25, 36]


def test_every_thread_is_serial_and_without_gradients(threads: int) -> None:
    found = side_by_side(lambda _: (torch.get_num_threads(), torch.is_grad_enabled()), range(9))
    assert set(found) == {(1, False)}


def test_threads_work_at_the_same_time(threads: int) -> None:
    meeting = threading.Barrier(threads)
    side_by_side(lambda _: meeting.wait(timeout=10), range(threads))


def test_torch_keeps_its_number_of_threads() -> None:
    torch.set_num_threads(5)  # for which no other test has started threads
    side_by_side(lambda part: part, range(9))
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *later] == [5, 5]
    torch.set_num_threads(1)


def test_an_error_comes_through(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda part: 1 // part, range(3))

"""Sliding windows: what torch's pools give, and work that does not grow with the window."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from llmga.windows import greatest_around, sum_around

pytestmark = pytest.mark.usefixtures("one_thread")
REACHES = (0, 1, 2, 3, 7, 8, 31, 100)


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(height)) - 0.5


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("size", [(1, 1), (5, 70), (64, 33)])
def test_the_same_as_pools(reach: int, size: tuple[int, int]) -> None:
    x, side = picture(*size), 2 * reach + 1
    wide = F.pad(x, (reach,) * 4, value=float("-inf"))
    assert torch.equal(greatest_around(x, reach), F.max_pool2d(wide, side, 1))
    total = F.avg_pool2d(F.pad(x.double(), (reach,) * 4), side, 1) * side**2
    torch.testing.assert_close(sum_around(x.double(), reach), total)
    torch.testing.assert_close(sum_around(x, reach), total.float(), atol=1e-5, rtol=1e-5)


def test_a_hole_in_the_numbers_spreads_as_far_as_the_window() -> None:
    x = torch.zeros(1, 1, 9, 9)
    x[..., 4, 4] = torch.nan
    for found in (greatest_around(x, 2), sum_around(x, 2)):
        assert found.isnan().sum() == 25 and found[..., 2:7, 2:7].isnan().all()


class Count(TorchDispatchMode):
    """How many numbers all operations of torch gave."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.total += out.numel() if isinstance(out, torch.Tensor) else 0
        return out


@pytest.mark.parametrize("around", [greatest_around, sum_around])
def test_the_work_grows_with_the_logarithm(around) -> None:
    x, work = picture(600, 600), []
    for reach in (4, 128):
        with Count() as count:
            around(x, reach)
        work.append(count.total)
    assert work[1] < 4 * work[0]  # 32 times as far

"""Constants are made once per device, and can be trained with whoever made them."""

import torch

from modeling.constants import constant, held

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


def test_the_values_are_those_given() -> None:
    assert torch.equal(constant((1.5, 2.5), torch.float32, CPU), torch.tensor([1.5, 2.5]))
    assert torch.equal(held((3, 4), torch.int64, CPU), torch.tensor([3, 4]))


def test_an_accelerator_is_copied_to_once() -> None:
    with torch.inference_mode():
        first = constant((5, 6), torch.int64, ELSEWHERE)
    assert constant((5, 6), torch.int64, ELSEWHERE) is first
    assert not first.is_inference()
    assert constant((5, 7), torch.int64, ELSEWHERE) is not first
    assert constant((5, 6), torch.float32, ELSEWHERE).dtype == torch.float32

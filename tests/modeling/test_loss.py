"""The loss against fp64, the chunked loss against the plain one, and what a decoder starts from."""

import pytest
import torch
from small_decoders import MEMBERS, random_decoder, random_ids

from modeling.decoder import Decoder
from modeling.initialise import initialise
from modeling.loss import fused_next_token_loss, next_token_loss
from modeling.presets import TINY


def expected_loss(logits_BTV: torch.Tensor, targets_BT: torch.Tensor, z_loss: float) -> torch.Tensor:
    """In fp64, from the definition, token by token."""
    terms = []
    for row, target in zip(logits_BTV.double().flatten(0, 1), targets_BT.flatten().tolist(), strict=True):
        if target != -100:
            log_sum = row.exp().sum().log()
            terms.append(log_sum - row[target] + z_loss * log_sum**2)
    return torch.stack(terms).mean()


def targets_with_gaps() -> torch.Tensor:
    targets_BT = random_ids(2, 21, seed=5)
    targets_BT[0, 3:9] = -100
    targets_BT[1, -1] = -100
    return targets_BT


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_the_loss_is_its_definition(z_loss: float) -> None:
    logits_BTV = 3 * torch.randn(2, 21, 128)
    targets_BT = targets_with_gaps()
    loss = next_token_loss(logits_BTV, targets_BT, z_loss)
    torch.testing.assert_close(loss.double(), expected_loss(logits_BTV, targets_BT, z_loss), rtol=1e-6, atol=0)
    assert next_token_loss(logits_BTV.bfloat16(), targets_BT).dtype == torch.float32


def test_no_target_at_all_is_zero_with_zero_gradients() -> None:
    logits_BTV = torch.randn(1, 4, 128, requires_grad=True)
    loss = next_token_loss(logits_BTV, torch.full((1, 4), -100))
    loss.backward()
    assert loss.item() == 0
    assert logits_BTV.grad is not None
    assert logits_BTV.grad.abs().max() == 0


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("chunk_tokens", [1, 8, 1000])
def test_chunks_change_neither_loss_nor_gradients(chunk_tokens: int, z_loss: float) -> None:
    """Against the plain loss in fp64, so that the comparison has room to see float32's own error only."""
    hidden_BTD = torch.randn(2, 21, 32)
    head_VD = torch.randn(128, 32)
    targets_BT = targets_with_gaps()
    ours = [hidden_BTD.clone().requires_grad_(), head_VD.clone().requires_grad_()]
    loss = fused_next_token_loss(*ours, targets_BT, z_loss=z_loss, chunk_tokens=chunk_tokens)
    (loss * 2.5).backward()
    plain = [hidden_BTD.double().requires_grad_(), head_VD.double().requires_grad_()]
    wanted = expected_loss(plain[0] @ plain[1].T, targets_BT, z_loss)
    (wanted * 2.5).backward()
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=0)
    for mine, theirs in zip(ours, plain, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert (mine.grad - theirs.grad).norm() < 1e-5 * theirs.grad.norm()


@pytest.mark.parametrize("member", ["tied", "gqa"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_decoders_loss_is_the_loss_of_its_logits(member: str, autocast: bool) -> None:
    targets_BT = targets_with_gaps()
    gradients = []
    for fused in (True, False):
        decoder = random_decoder(MEMBERS[member])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            if fused:
                loss = decoder.loss(random_ids(2, 21), targets_BT, chunk_tokens=16)
            else:
                loss = next_token_loss(decoder(random_ids(2, 21)), targets_BT)
        loss.backward()
        gradients.append((loss.detach(), decoder.embedding.weight.grad, decoder.head_weight.grad))
    tolerance = 0.03 if autocast else 1e-5  # bfloat16 keeps 8 bits
    for mine, theirs in zip(*gradients, strict=True):
        assert (mine - theirs).norm() <= tolerance * theirs.norm()


def test_a_seed_decides_the_start() -> None:
    first, again, other = (initialise(Decoder(TINY), torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
    assert abs(first["layers.0.feed_forward.gate_up.weight"].std().item() - TINY.initializer_range) < 0.001
    assert torch.equal(first["norm.weight"], torch.ones(32))
    assert TINY.pad_id is not None
    assert first["embedding.weight"][TINY.pad_id].abs().max() == 0

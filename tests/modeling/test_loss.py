"""The loss against fp64, the chunked loss against the plain one, and what a decoder starts from."""

from typing import Any

import pytest
import torch
from small_decoders import MEMBERS, random_decoder, random_ids
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.initialise import initialise
from modeling.loss import fused_next_token_loss, next_token_loss, softmax_gradient, softmax_gradient_in_place
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


@pytest.mark.parametrize("chunk_tokens", [0, -1])
def test_a_chunk_of_no_tokens_is_refused(chunk_tokens: int) -> None:
    """Chunks of -1 tokens went over none of them, and the loss was 0."""
    with pytest.raises(ModelError, match=f"chunk_tokens must be at least 1, or None .* got {chunk_tokens}"):
        random_decoder(TINY).loss(random_ids(1, 5), random_ids(1, 5), chunk_tokens=chunk_tokens)


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


@pytest.mark.parametrize("wrong", [-1, -99, 128])
def test_a_target_that_is_no_entry_is_refused(wrong: int) -> None:
    """-100 alone is ignored; no other number is taken for an entry of the vocabulary."""
    hidden_BTD, head_VD, targets_BT = torch.randn(1, 4, 32), torch.randn(128, 32), random_ids(1, 4)
    targets_BT[0, 2] = wrong
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        next_token_loss(hidden_BTD @ head_VD.T, targets_BT)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        fused_next_token_loss(hidden_BTD, head_VD, targets_BT)


def test_the_mean_of_bfloat16_gradients_is_scaled_in_float32() -> None:
    """1/300 in bfloat16 is 0.2 % off, which all gradients would then be. The rounding of each value has no direction."""
    hidden_BTD, head_VD, targets_BT = random_inputs(tokens=302)  # two of them are ignored
    gradients = []
    for factor in (1.0, 300.0):  # the second is the sum's gradient, as it is
        inputs = [hidden_BTD.bfloat16().requires_grad_(), head_VD.bfloat16().requires_grad_()]
        (fused_next_token_loss(*inputs, targets_BT) * factor).backward()
        gradients.append([one.grad for one in inputs])
    for mean, whole in zip(*gradients, strict=True):
        assert mean.dtype == torch.bfloat16
        along = (mean.double() * 300 * whole.double()).sum() / whole.double().square().sum()
        assert abs(along - 1) < 5e-4


def random_inputs(tokens: int = 37, width: int = 24, vocab_size: int = 131) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden rows, head and targets of sizes that no chunk divides, two targets ignored."""
    generator = torch.Generator().manual_seed(3)
    hidden_BTD = torch.randn(1, tokens, width, generator=generator)
    head_VD = torch.randn(vocab_size, width, generator=generator)
    targets_BT = torch.randint(0, vocab_size - 8, (1, tokens), generator=generator)
    targets_BT[0, 7:9] = -100
    return hidden_BTD, head_VD, targets_BT


def test_ids_that_never_come_have_no_part_in_loss_and_gradients() -> None:
    hidden_BTD, head_VD, targets_BT = random_inputs()
    never = tuple(range(123, 131))
    ours = [hidden_BTD.clone().requires_grad_(), head_VD.clone().requires_grad_()]
    fused_next_token_loss(*ours, targets_BT, z_loss=0.01, chunk_tokens=10, never_ids=never).backward()
    plain = [hidden_BTD.double().requires_grad_(), head_VD.double().requires_grad_()]
    expected_loss(plain[0] @ plain[1][:123].T, targets_BT, 0.01).backward()  # a head without those rows
    for mine, theirs in zip(ours, plain, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert (mine.grad - theirs.grad).norm() < 1e-5 * theirs.grad.norm()
    assert ours[1].grad is not None
    assert ours[1].grad[123:].abs().max() == 0
    targets_BT[0, 0] = 130
    assert fused_next_token_loss(hidden_BTD, head_VD, targets_BT, never_ids=never).isinf()


def test_a_graph_may_be_gone_back_twice() -> None:
    hidden_BTD, head_VD, targets_BT = random_inputs()
    loss = fused_next_token_loss(hidden_BTD.requires_grad_(), head_VD.requires_grad_(), targets_BT)
    (first,) = torch.autograd.grad(loss, [head_VD], retain_graph=True)
    kept = first.clone()
    loss.backward()
    assert head_VD.grad is not None
    torch.testing.assert_close(head_VD.grad, kept, rtol=0, atol=0)
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_forms_of_the_softmaxs_gradient_are_one(dtype: torch.dtype, z_loss: float) -> None:
    logits_CV = (4 * torch.randn(9, 131)).to(dtype)
    targets_C1 = torch.randint(0, 131, (9, 1))
    losses_C1, grad_CV = softmax_gradient(logits_CV, targets_C1, z_loss, True)
    again_C1, other_CV = softmax_gradient_in_place(logits_CV.clone(), targets_C1, z_loss, True)
    torch.testing.assert_close(again_C1, losses_C1)
    torch.testing.assert_close(other_CV, grad_CV)


class LargestTensor(TorchDispatchMode):
    """Remembers how many values the largest tensor had that any operation made."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [one.numel() for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        self.values = max([self.values, *made])
        return result


def test_no_tensor_holds_all_logits() -> None:
    hidden_BTD, head_VD, targets_BT = random_inputs(tokens=64)
    with LargestTensor() as fused:
        fused_next_token_loss(hidden_BTD.requires_grad_(), head_VD.requires_grad_(), targets_BT, chunk_tokens=8).backward()
    assert fused.values == max(8 * 131, 131 * 24)
    with LargestTensor() as plain:
        next_token_loss(hidden_BTD @ head_VD.T, targets_BT).backward()
    assert plain.values == 64 * 131  # the watch does see logits


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # what torch's compiler does to any Function
@pytest.mark.parametrize("autocast", [False, True])
def test_the_loss_compiles_whole(autocast: bool) -> None:
    """One graph, forward and backward, and the eager numbers."""
    hidden_BTD, head_VD, targets_BT = random_inputs()
    compiled = torch.compile(fused_next_token_loss, fullgraph=True, backend="aot_eager")
    results = []
    for function in (fused_next_token_loss, compiled):
        inputs = [hidden_BTD.clone().requires_grad_(), head_VD.clone().requires_grad_()]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = function(*inputs, targets_BT, z_loss=0.01, chunk_tokens=10, never_ids=(125,))
        loss.backward()
        results.append([loss.detach(), *(one.grad for one in inputs)])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-2 if autocast else 1e-5, atol=2e-4 if autocast else 1e-7)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # what torch's inductor imports
@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run here: the compiled softmax needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gpus_kernels_give_the_loss_of_the_definition(dtype: torch.dtype) -> None:
    hidden_BTD, head_VD, targets_BT = random_inputs(tokens=300, width=64, vocab_size=1031)
    ours = [hidden_BTD.cuda().to(dtype).requires_grad_(), (0.1 * head_VD).cuda().to(dtype).requires_grad_()]
    loss = fused_next_token_loss(*ours, targets_BT.cuda(), z_loss=0.01, chunk_tokens=128)
    loss.backward()
    plain = [one.detach().cpu().double().requires_grad_() for one in ours]
    wanted = expected_loss(plain[0] @ plain[1].T, targets_BT, 0.01)
    wanted.backward()
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    assert abs(loss.item() - wanted.item()) < tolerance * wanted.item()
    for mine, theirs in zip(ours, plain, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert (mine.grad.cpu().double() - theirs.grad).norm() < tolerance * theirs.grad.norm()


def test_a_seed_decides_the_start() -> None:
    first, again, other = (initialise(Decoder(TINY), torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
    assert abs(first["layers.0.feed_forward.gate_up.weight"].std().item() - TINY.initializer_range) < 0.001
    assert torch.equal(first["norm.weight"], torch.ones(32))
    assert TINY.pad_id is not None
    assert first["embedding.weight"][TINY.pad_id].abs().max() == 0

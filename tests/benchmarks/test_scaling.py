"""The scaling benchmark at tiny sizes: every part runs, every figure says its kind, and its arithmetic is right."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scaling
from benchmarks.scaling_parts.clock import one_rank, scaled
from benchmarks.scaling_parts.decoders_modelled import Modelled
from benchmarks.scaling_parts.fields_modelled import GRIDS, pencils, traffic
from benchmarks.scaling_parts.gpu_model import NETWORK, NVLINK, Traffic, gather_seconds
from benchmarks.scaling_parts.launch import RankFailure, on_ranks
from benchmarks.scaling_parts.sent_bytes import context_bytes
from data_pipeline.storage import read_json, write_json


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("scaling")
    scaling.main(["--quick", "--out", str(folder / "out.json"), "--plot", str(folder / "out.svg")])
    found = read_json(folder / "out.json")
    found["drawn"] = (folder / "out.svg").read_text()
    return found


def figures(value: Any, kind: str | None = None) -> Iterator[tuple[str | None, Any]]:
    """Every number below, with the kind said nearest above it."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from figures(inner, value.get("kind", kind))
    elif isinstance(value, list):
        for inner in value:
            yield from figures(inner, kind)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield kind, value


@pytest.mark.slow
def test_every_part_runs_and_every_figure_says_its_kind(quick: dict[str, Any]) -> None:
    assert set(quick["parts"]) == set(scaling.PARTS)
    for part in quick["parts"].values():
        assert {"machine", "commit", "date", "quick"} <= set(part)
        assert {kind for kind, _ in figures(part)} <= set(scaling.KINDS)
    assert {way["weak"]["kind"] for way in quick["parts"]["decoder"]["ways"].values()} == {"measured"}
    assert quick["parts"]["modelled"]["fno_ranks"]["kind"] == "simulated"
    assert {row["kind"] for row in quick["parts"]["modelled"]["decoders"]["rows"]} == {"modelled"}
    assert all(f"{kind}:" in quick["drawn"] for kind in ("measured", "counted", "modelled"))


@pytest.mark.slow
def test_one_rank_dies_where_two_train_to_the_same_losses(quick: dict[str, Any]) -> None:
    found = quick["parts"]["memory"]
    assert "died_of" in found["one_rank"]
    assert all("losses" in rank for rank in found["two_ranks"])
    assert found["largest_relative_difference_of_losses"] < 1e-5


def test_efficiency_is_of_steps_of_one_round_and_the_slower_rank() -> None:
    first = {"a, solo": [(1.0, 0.0)] * 3, "a, pair": [(2.0, 0.0), (4.0, 0.0), (6.0, 0.0)], "b": [(2.0, 0.5), (3.0, 1.0), (6.0, 1.0)]}
    second = {"a, solo": [], "a, pair": [(2.0, 0.0), (2.0, 0.0), (6.0, 0.0)], "b": [(4.0, 0.2), (6.0, 3.0), (12.0, 8.0)]}
    found = scaled([first, second], "a", "b", 1.0)
    assert found["efficiency_fair"]["median"] == 0.5  # 2/4, 3/6, 6/12
    assert found["efficiency_plain"]["median"] == pytest.approx(1 / 6, rel=1e-3)
    assert found["compute_s"]["median"] == 3.8
    assert found["communication_s"]["median"] == 1.0
    assert scaled([first, second], "a", "b", 0.5)["efficiency_fair"]["median"] == 0.25
    assert one_rank([first, second], "a")["contention"]["median"] == 3.0


def test_halo_sends_less_than_a_fiftieth_of_ring() -> None:
    for rank in range(8):
        sent = context_bytes(rank, 131_072, 2047, 8, per_token=2 * 32 * 96, itemsize=2)
        assert sent["ring"][0] >= 50 * sent["halo"][0]
    assert context_bytes(3, 131_072, 2047, 8, 2 * 32 * 96, 2)["halo"][0] == 2046 * 2 * 32 * 96 * 2


def test_modelled_traffic_is_what_the_plan_says() -> None:
    plan = pencils(GRIDS[16])
    for rank in (0, 7, 15):
        found = traffic(plan, rank, channels=3)
        assert sum(one.bytes_inside + one.bytes_outside for one in found) == plan.bytes_sent(rank, in_channels=3, out_channels=3)


def test_the_model_is_alpha_and_beta() -> None:
    assert Traffic(3, 900.0).seconds(at_once=False) == pytest.approx(3 * NVLINK.alpha + 900 / NVLINK.beta)
    assert Traffic(0, 0.0, 3, 900.0).seconds(at_once=True) == pytest.approx(NETWORK.alpha + 900 / NETWORK.beta)
    assert gather_seconds(8e9, 1) == 0
    assert gather_seconds(8e9, 8) == pytest.approx(7 * NVLINK.alpha + 7e9 / NVLINK.beta)
    assert gather_seconds(8e9, 16) - gather_seconds(8e9, 8) == pytest.approx(NETWORK.alpha + 0.5e9 / NETWORK.beta)
    assert Modelled(3.0, 1.0).efficiency == 0.75


def test_a_file_that_is_no_record_of_it_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "other.json", [1])
    with pytest.raises(SystemExit) as error:
        scaling.main(["--quick", "--parts", "bytes", "--out", str(tmp_path / "other.json")])
    assert error.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def fails_on_rank_one() -> None:
    import torch.distributed as dist

    if dist.get_rank() == 1:
        raise ValueError("no luck")
    dist.barrier()


def test_a_rank_that_fails_ends_the_others() -> None:
    with pytest.raises(RankFailure, match="no luck"):
        on_ranks(2, fails_on_rank_one)

"""What a reader of the scaling benchmark wants to see first: lines of text, each with the kind of its figures."""

from collections.abc import Callable, Iterator
from typing import Any


def measured_line(name: str, one: dict[str, Any]) -> str:
    return (
        f"measured: {name}: efficiency {one['efficiency_fair']['median']:.3f} fair, {one['efficiency_plain']['median']:.3f} plain; "
        f"{one['step_s']['median']} s, compute {one['compute_s']['median']}, communication {one['communication_s']['median']}"
    )


def contention(found: dict[str, Any]) -> Iterator[str]:
    for case, one in found["one_rank"].items():
        yield (
            f"measured: one rank, {case}: {one['solo_s']['median']} s alone, {one['beside_the_same_work_s']['median']} s beside the same "
            f"work without communication: contention of the two cores costs a factor of {one['contention']['median']}"
        )


def decoder(found: dict[str, Any]) -> Iterator[str]:
    yield from contention(found)
    for name, way in found["ways"].items():
        for scaling in ("weak", "strong"):
            yield measured_line(f"{name}, {scaling}", way[scaling])
    gradients = found["gradient_sum_of_context_ranks"]
    yield f"measured: sum of a layer's gradients over context ranks, once per {gradients['per']}: {gradients['step_s']['median']} s"


def fno(found: dict[str, Any]) -> Iterator[str]:
    yield from contention(found)
    for name, one in found["ways"].items():
        yield measured_line(name, one)


def sent(found: dict[str, Any]) -> Iterator[str]:
    context, fields = found["context"], found["fno"]
    for name, row in context["bfloat16_bytes_per_rank_and_layer"].items():
        yield (
            f"counted: {name}: per rank and layer halo sends {row['times_fewer_forward']} times fewer bytes than ring forwards, "
            f"{row['times_fewer_forward_and_backward']} there and back (goal {context['goal_times_fewer']})"
        )
    for name, row in fields["fields"].items():
        yield (
            f"counted: {name} on {row['ranks']} ranks: {row['times_fewer']} times fewer bytes than untruncated "
            f"(goal {fields['goal_times_fewer']})"
        )


def modelled(found: dict[str, Any]) -> Iterator[str]:
    for layout in ("pencils", "planned"):
        for rank in found["fno_ranks"][layout]["ranks"]:
            yield (
                f"simulated: {layout}, rank {rank['rank']} of {found['fno_ranks']['gpus']}: {rank['peak_bytes_of_step'] / 1e9:.2f} GB, "
                f"{rank['flops'] / 1e9:.1f} Gflop, {rank['sent_bytes'] / 1e6:.1f} MB sent in {rank['sent_messages']} messages"
            )
    for row in found["fno"]["rows"]:
        if row["gpus"] == 768 and "impossible" not in row:
            low, high = row["messages_one_after_another"]["efficiency"], row["messages_at_once"]["efficiency"]
            yield f"modelled: fno on 768 GPUs, {row['layout']}: weak efficiency {low} (messages one after another) to {high} (at once)"
    for row in found["decoders"]["rows"]:
        if row["gpus"] == 512:
            yield (
                f"modelled: {row['decoder']} on 512 GPUs, {row['layout']}, {row['scaling']}: "
                f"efficiency {row['efficiency']}, {row['tokens_per_s']:,} tokens/s"
            )


def memory(found: dict[str, Any]) -> Iterator[str]:
    def said(rank: dict[str, Any]) -> Any:
        return rank.get("died_of") or rank["losses"]

    yield f"measured: limit of {found['training']['limit_mib']} MiB per rank beside what torch holds; one rank: {said(found['one_rank'])}"
    yield f"measured: two ranks under the same limit: losses {said(found['two_ranks'][0])}"


SUMMARIES: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "decoder": decoder,
    "fno": fno,
    "bytes": sent,
    "modelled": modelled,
    "memory": memory,
}

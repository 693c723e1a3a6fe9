"""The scores of several models of one run joined: what demo results and the report show."""

from pathlib import Path
from typing import Any

from data_pipeline.storage import read_json
from eval.compare import compare

# name -> (after, before): the difference is after minus before, over the same items.
PAIRS = {"sft_minus_base": ("sft", "base"), "dpo_minus_sft": ("dpo", "sft"), "int4_minus_dpo": ("int4", "dpo")}


def summarise(eval_folders: dict[str, str | Path]) -> dict[str, Any]:
    """From the folders that `evaluate` wrote, by model name ("base", "sft", "dpo", "int4"):

    multiple_choice {model: accuracy, stderr, low, high, items, chance, scoring, macro, text_accuracy, ...}, families {model: {family: the
    same}}, exact_answers {model: accuracy, stderr, items}, bits_per_byte {model: number}, preference_accuracy {model: accuracy under both
    scorings}, paired {pair: what `compare` returns}, protocols {task: {model: protocol}}. A task that a model was not scored on is absent.
    """
    results = {name: read_json(Path(folder) / "results.json")["tasks"] for name, folder in eval_folders.items()}
    choice = {name: tasks["mmlu"] for name, tasks in results.items() if "mmlu" in tasks}
    return {
        "multiple_choice": {
            name: {**flat(task["scores"], task["chance"], task["scoring"]), "truncations": task["truncations"]}
            for name, task in choice.items()
        },
        "families": {
            name: {family: flat(scores, task["chance"], task["scoring"]) for family, scores in task["families"].items()}
            for name, task in choice.items()
        },
        "exact_answers": {name: exact(tasks["exercises"]) for name, tasks in results.items() if "exercises" in tasks},
        "bits_per_byte": {name: tasks["bits_per_byte"]["score"] for name, tasks in results.items() if "bits_per_byte" in tasks},
        "preference_accuracy": {
            name: preference(tasks["preferences"]) for name, tasks in results.items() if "preferences" in tasks and name != "base"
        },
        "paired": {
            pair: compare(eval_folders[before], eval_folders[after], scoring=choice[after]["scoring"])
            for pair, (after, before) in PAIRS.items()
            if after in choice and before in choice
        },
        "protocols": {
            task: {name: tasks[task]["protocol"] for name, tasks in results.items() if task in tasks}
            for task in ("mmlu", "exercises", "bits_per_byte", "preferences")
        },
    }


def flat(scores: dict[str, Any], chance: float, scoring: str) -> dict[str, Any]:
    """The chosen scoring under plain names, letter and option-text scoring beside it. `near_chance`: within two errors of it."""
    chosen = scores[scoring]
    entry: dict[str, Any] = {
        "accuracy": chosen["score"],
        "stderr": chosen["standard_error"],
        "low": chosen["low"],
        "high": chosen["high"],
        "items": chosen["items"],
        "chance": chance,
        "scoring": scoring,
        "near_chance": chosen["score"] - chance < 2 * chosen["standard_error"],
    }
    for name in ("letter", "text"):
        one = scores[name]
        entry |= {f"{name}_accuracy": one["score"], f"{name}_stderr": one["standard_error"], f"{name}_low": one["low"]}
        entry |= {f"{name}_high": one["high"]}
    entry["text_per_byte_accuracy"] = scores["text_per_byte"]["score"]
    return entry | ({"macro": chosen["macro"]} if "macro" in chosen else {})


def exact(task: dict[str, Any]) -> dict[str, Any]:
    families = {family: scores["exact"]["score"] for family, scores in task["families"].items()}
    return {
        "accuracy": task["score"],
        "stderr": task["standard_error"],
        "low": task["low"],
        "high": task["high"],
        "items": task["items"],
        "families": families,
    }


def preference(task: dict[str, Any]) -> dict[str, Any]:
    summed, normalised = task["scores"]["sum"], task["scores"]["per_token"]
    return {
        "accuracy": summed["score"],
        "stderr": summed["standard_error"],
        "low": summed["low"],
        "high": summed["high"],
        "items": summed["items"],
        "chance": task["chance"],
        "scoring": "summed log-probability, not normalised by length",
        "per_token_accuracy": normalised["score"],
        "kinds": {kind: scores["sum"]["score"] for kind, scores in task["kinds"].items()},
    }

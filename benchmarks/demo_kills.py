"""Kills the tiny chain many times at seeded moments and compares the end with an undisturbed run: `python benchmarks/demo_kills.py`.

Every round runs the chain in a new folder and kills it (SIGKILL) `--kills` times, each time in a stage and at a moment drawn from the seed,
then lets it end. A round is right when weights and package are those of the undisturbed run bit for bit. Writes
benchmarks/results/demo_kills.json.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from data_pipeline.provenance import provenance  # noqa: E402
from data_pipeline.storage import sha256_of, write_json  # noqa: E402
from tests import tiny_chain  # noqa: E402

COMPARED = ("tokenizer/tokenizer.json", "pretrain/model/model.safetensors", "sft/model/model.safetensors", "dpo/model/model.safetensors")
COMPARED += ("package/model.onnx", "package/model.onnx.data")


def drive(recipe: Path, out: Path, kills: list[tuple[str, int]], *more: str) -> dict:
    """One chain with these kills: exit codes, and the moments of each stage in the last try."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/demo/killed_chain.py"), str(recipe), str(out), json.dumps(kills), *more],
        env={**tiny_chain.environment(), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def digests(run: Path) -> dict[str, str]:
    return {name: sha256_of(run / name) for name in COMPARED}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kills", type=int, default=8, help="kills per round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/demo_kills.json")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    struck: dict[str, int] = {}
    wrong: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="phial-kills-") as folder:
        recipe = tiny_chain.write_recipe(Path(folder) / "recipe")
        moments = drive(recipe, Path(folder) / "undisturbed", [])["moments"]
        moments.pop("", None)  # before the first stage
        expected = digests(Path(folder) / "undisturbed")
        drive(recipe, Path(folder) / "other", [], "--set", "run.seed=8")
        other = digests(Path(folder) / "other")
        for number in range(options.rounds):
            stages = sorted(chance.choices(list(moments), k=options.kills), key=list(moments).index)
            kills = [(stage, chance.randrange(moments[stage])) for stage in stages]
            run = Path(folder) / f"round-{number}"
            codes = drive(recipe, run, kills)["exit_codes"]
            for (stage, _), code in zip(kills, codes, strict=False):
                struck[stage] = struck.get(stage, 0) + (code == -9)
            differ = [name for name, digest in digests(run).items() if digest != expected[name]]
            if differ or codes[-1] != 0:
                wrong.append({"kills": kills, "exit_codes": codes, "differ": differ})
            print(f"round {number + 1} of {options.rounds}: {codes.count(-9)} kills, {differ or 'equal'}", flush=True)
    result = {
        "rounds": options.rounds,
        "kills": sum(struck.values()),
        "kills_by_stage": struck,
        "moments_by_stage": moments,
        "compared": list(COMPARED),
        "wrong_rounds": wrong,
        "another_seed_differs_in": [name for name in COMPARED if other[name] != expected[name]],
        "seed": options.seed,
        **provenance("torch", "transformers", "trl", "onnxruntime"),
    }
    write_json(options.out, result)
    print(f"{options.out}: {result['kills']} kills in {options.rounds} rounds, {len(wrong)} rounds with other bits")


if __name__ == "__main__":
    main()

"""The skill family about small Python functions. Every answer is the function's own: the code is executed, apart from this process."""

import json
import subprocess
import sys
from random import Random

from data_pipeline.synthetic.problem import Case, Family, listed

# (expression over the argument `values`, what it returns in words)
BODIES = (
    ("max(values)", "the largest value"),
    ("min(values)", "the smallest value"),
    ("values[0]", "the first value"),
    ("values[-1]", "the last value"),
)
NAMES = ("pick", "choose", "find", "get", "take", "select")

# Runs each program with almost no builtins, within limits on CPU time and memory, and prints the results as JSON.
RUNNER = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
allowed = {"max": max, "min": min, "sorted": sorted, "len": len, "sum": sum}
results = []
for program, call in json.load(sys.stdin):
    scope = {"__builtins__": allowed}
    exec(program, scope)
    results.append(eval(call, scope))
json.dump(results, sys.stdout)
"""


def run_programs(programs: list[tuple[str, str]], seconds: float = 30.0) -> list[object]:
    """What each call returns: (source, call expression) pairs executed in one isolated child process."""
    child = subprocess.run(
        [sys.executable, "-I", "-c", RUNNER], input=json.dumps(programs), capture_output=True, text=True, timeout=seconds, check=False
    )
    if child.returncode:
        raise AssertionError(f"the generated programs failed: {child.stderr.strip().splitlines()[-1]}")
    return json.loads(child.stdout)


def program(body: str, name: str) -> str:
    return f"def {name}(values):\n    return {body}"


def draw_programs(rng: Random) -> Case:
    body, words = rng.choice(BODIES)
    name = rng.choice(NAMES)
    values = rng.sample(range(10, 100), 4)
    result = {"max(values)": max(values), "min(values)": min(values), "values[0]": values[0], "values[-1]": values[-1]}[body]
    others = [str(one) for one in values if one != result]
    return Case(
        operands=(body, *values),
        fields={
            "program": program(body, name),
            "body": body,
            "name": name,
            "call": f"{name}({values})",
            "list": listed([*map(str, values)]),
        },
        answer=str(result),
        distractors=(others[0], others[1], others[2]),
        reason=f"{name} returns {words}, which is {result}.",
        program=(program(body, name), f"{name}({values})"),
    )


def check_programs(case: Case) -> bool:
    """The cheap check of one case; `run_programs` executes all of a build's programs together."""
    return str(case.answer) in case.fields["call"].replace("[", " ").replace("]", " ").replace(",", " ").split()


PROGRAMS = Family(
    name="programs",
    title="small Python functions",
    rule="To know what a function returns, put the argument in the place of its parameter and follow the return line.",
    wordings={
        "train": (
            "{program}\nWhat does {call} return?",
            "{program}\nWhat is {call}?",
            "{program}\nFind the value of {call}.",
        ),
        "held_out": ("{program}\nFind what {call} does return.", "{program}\nWhat is the value of {call}?"),
    },
    draw=draw_programs,
    check=check_programs,
)

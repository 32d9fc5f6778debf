"""Large networks, right and with one wrong layer: what a check of them costs, and what it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tfcheck.scripts.bench.cases import RESNET50, WRONG_LAYER, Case, Effort, application
from tfcheck.scripts.bench.processes import Answer, ask
from tfcheck.scripts.bench.results import Row, Subject, ratio

PASSES = 45
"""Forward passes in float64 that a repeated check of a right network should take at most."""
FAILING = 3
"""How many times more where a layer is wrong, its name included."""
TIMEOUT = 900.0
REPEATS = 3

FIRST_STEP = "Keras's first training step"
STEP = "a training step"
FORWARD = "a forward pass in float64"
TRACING = "tracing and promotion, × Keras's first step"
FIRST_CHECK = "first check"
IN_PASSES = "repeated check, × forward pass"
IN_STEPS = "repeated check, × training step"
MEMORY = "memory of the first check, × first step"
COMPARED = "share of variables compared"
SAID = "what the check says"

WRONG = "one layer wrong"


def language(
    name: str,
    width: int,
    blocks: int,
    heads: int,
    vocabulary: int,
    *,
    length: int = 64,
    batch: int = 2,
    causal: bool = True,
) -> Case:
    """A transformer that gives scores of all tokens at each place.

    Args:
        name: how tables call it.
        width: features of each token.
        blocks: attention with an MLP.
        heads: of each attention.
        vocabulary: number of tokens.
        length: of a text. Defaults to 64.
        batch: number of texts. Defaults to 2.
        causal: whether a token sees only those before it. Defaults to True.
    """
    sizes = {
        "width": width,
        "blocks": blocks,
        "heads": heads,
        "vocabulary": vocabulary,
        "length": length,
        "batch": batch,
        "causal": causal,
        "wrong": False,
    }
    return Case(f"{name}, batch {batch}×{length}", "language", sizes)


def grouped(image: int, group: int, blocks: list[tuple[int, int]], batch: int = 2) -> Case:
    """A network like MobileNet whose convolutions are in groups.

    Args:
        image: pixels along a side.
        group: channels of each group.
        blocks: filters and strides of each.
        batch: number of images. Defaults to 2.
    """
    sizes = {"image": image, "group": group, "blocks": blocks, "batch": batch}
    return Case(f"grouped MobileNet {image}×{image}×3, batch {batch}", "grouped", sizes)


def wrong(case: Case, **sizes: object) -> Case:
    """The case with a layer in its middle whose backward pass is off by 5 %."""
    return replace(case, label=f"{case.label}, {WRONG}", sizes={**case.sizes, **sizes})


GPT_9M = language("GPT 8.8 M", 256, 6, 4, 8000)
GPT_64M = language("GPT 64 M", 768, 8, 12, 4750)
TINY_GPT = language("tiny GPT", 16, 2, 2, 50, length=8)
MOBILENET = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
MOBILENET += [*[(512, 1)] * 5, (1024, 2), (1024, 1)]
LARGE = (
    GPT_9M,
    language("GPT 26.5 M", 512, 6, 8, 7400),
    GPT_64M,
    RESNET50,
    application("ResNet50", 32),
    application("DenseNet121", 32, 4),
    application("ConvNeXtTiny", 64),
    application("EfficientNetV2S", 64),
    application("MobileNet", 64),
    grouped(64, 8, MOBILENET),
    language("narrow BERT", 32, 4, 2, 100, length=16, batch=4, causal=False),
    wrong(GPT_9M, wrong=True),
    wrong(GPT_64M, wrong=True),
    wrong(application("ResNet50", 64, wrong_after="conv3_block4_out")),
)
TINY = (TINY_GPT, wrong(TINY_GPT, wrong=True))


def rows(effort: Effort) -> Iterator[Row]:
    """Right networks, then wrong ones."""
    for case in TINY if effort.quick else LARGE:
        answer = ask(
            "beside_training:measure",
            timeout=min(effort.timeout, TIMEOUT),
            **case.arguments,
            **{**effort.repetition, "repeats": min(effort.repeats, REPEATS)},
        )
        yield from of_case(case, answer)


def of_case(case: Case, answer: Answer) -> Iterator[Row]:
    """The rows of one network; those that its process did not come to say so."""
    note = answer.get("note", "")

    def row(what: str, name: str, unit: str = "s", over: str = "") -> Row:
        value = answer.get(name)
        said = note if value is None else ""
        own = what not in (FIRST_STEP, STEP, FORWARD)
        return Row(case.label, what, value, unit, note=said, own=own).replaced(
            ratio=ratio(value, answer.get(over))
        )

    first = row(FIRST_STEP, "first_step")
    yield first.replaced(note=first.note or f"{answer['parameters']:,} parameters")
    yield row(STEP, "step")
    yield row(FORWARD, "forward")
    traced = row(TRACING, "tracing", over="first_step")
    yield traced.at_most(0.5, traced.ratio)
    yield row(FIRST_CHECK, "first_check")
    again = row(IN_PASSES, "repeated", over="forward").replaced(runs=answer.get("runs"))
    if "evaluations" in answer:
        again = again.replaced(note=f"{answer['evaluations']:,} evaluations")
    yield again.at_most(PASSES * FAILING if case.wrong else PASSES, again.ratio)
    yield row(IN_STEPS, "repeated", over="step").replaced(runs=answer.get("runs"))
    taken = row(MEMORY, "check_bytes", "B", over="step_bytes")
    yield taken.at_most(3, taken.ratio)
    yield from _said(case, answer)


def _said(case: Case, answer: Answer) -> Iterator[Row]:
    """How many variables were compared, and whether the verdict is the right one."""
    goal = "fail, at the wrong layer" if case.wrong else "pass"
    row = Row(case.label, COMPARED, unit="", note=answer.get("note", ""), own=True)
    verdict = answer.get("verdict")
    if verdict is None:
        yield row.at_least(0.9, None, "")
        yield row.replaced(what=SAID, goal=goal)
        return
    share = ratio(answer["compared"], answer["variables"])
    note = f"{answer['compared']} of {answer['variables']}"
    yield row.replaced(value=share, note=note).at_least(0.9, share, "")
    note = ", ".join([f"verdict {verdict}", *(f"culprit {name}" for name in answer["culprits"])])
    yield row.replaced(what=SAID, note=note, goal=goal, met=judged_rightly(case, answer))


def judged_rightly(case: Case, answer: Answer) -> bool:
    """Whether a right network passes, and a wrong one fails with its wrong layer as the culprit."""
    culprits = [path.rpartition("/")[2] for path in answer["culprits"]]
    expected = ("fail", [WRONG_LAYER]) if case.wrong else ("pass", [])
    return (answer["verdict"], culprits) == expected


SUBJECT = Subject(
    name="networks",
    title="Large networks",
    how="Each network in a process of its own, which trains it and then checks it. "
    "A forward pass is that of the loss in float64, by the graph that is checked; it and a "
    f"training step are the best of five. Memory is the peak above the level before. Where "
    f"“{WRONG}”, the gradient that a layer in the middle passes on is off by 5 %; that of ResNet50 "
    "lies between two nested models. "
    f"A process is stopped after {TIMEOUT:.0f} s, and what it had not measured by then is missing.",
    ratio="×",
    plotted="ratio",
    logarithmic=True,
    rows=rows,
)

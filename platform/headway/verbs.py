"""The verbs that read a run folder. What is wrong with RUN or an option is answered without importing torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from headway.config.errors import EXIT_DONE, UserError
from headway.terminal import print_json, print_table, tell

if TYPE_CHECKING:
    from headway.evaluate.loading import LoadedRun
    from headway.evaluate.selection import Selection

Runs = Annotated[Path, Parameter(help="Folder of run folders.")]
Trust = Annotated[tuple[str, ...], Parameter(help="Module of your own that the recipe may name as kind: module:Class.")]
Json = Annotated[bool, Parameter(negative="", help="Print one JSON object as the last line of standard output.")]
Checkpoint = Annotated[str, Parameter(help="best, last, or a step.")]
# What starts with a dash may be a number or a sentence; options are told apart below.
Values = Annotated[str, Parameter(allow_leading_hyphen=True)]


def add_verbs(app: App) -> None:
    """Gives a command line the verbs of this file."""
    app.command(evaluate, name="eval")
    for verb in (predict, generate, translate, score, export):
        app.command(verb)


def evaluate(
    run: str,
    /,
    *,
    split: Literal["train", "validation", "test"] = "test",
    attack: str | None = None,
    bleu: Annotated[bool, Parameter(negative="")] = False,
    checkpoint: Checkpoint = "best",
    runs: Runs = Path("runs"),
    trust: Trust = (),
    json: Json = False,
) -> int:
    """Compute a run's metrics on a split of its data.

    Parameters
    ----------
    run
        Id or path of a run.
    split
        Which part of the data.
    attack
        fgsm:EPSILON also gives the accuracy on inputs changed by EPSILON, in the units of the net's input.
    bleu
        Also translate the whole split and compare it with what it should be.
    """
    from headway.evaluate.attack import parse_attack

    epsilon = None if attack is None else parse_attack(attack)
    selection = _select(run, runs, checkpoint, trust)
    from headway.evaluate.evaluation import evaluate as compute

    result = compute(selection, split=split, epsilon=epsilon, with_bleu=bleu)
    if json:
        print_json(result.as_dict())
        return EXIT_DONE
    rows = [["run", f"{result.run_id} at step {result.step}"], ["split", f"{result.split}, {result.samples:,} samples"]]
    print_table(["", ""], rows + [[name, f"{value:.6g}"] for name, value in result.metrics.items()])
    return EXIT_DONE


def predict(
    run: str,
    /,
    *inputs: Values,
    checkpoint: Checkpoint = "best",
    runs: Runs = Path("runs"),
    trust: Trust = (),
    json: Json = False,
) -> int:
    """Predict the class or the values of inputs from outside a run's data.

    Parameters
    ----------
    run
        Id or path of a run.
    inputs
        Image files; rows of values such as 5.1,3.5,1.4 or CSV files of them; or texts: by what the run reads.
    """
    _refuse_options(inputs)
    if not inputs:
        raise UserError("predict needs an INPUT: an image file, a row of values, a CSV file, or a text")
    selection = _select(run, runs, checkpoint, trust)
    selection.refuse_unless_target("predict")
    loaded = _load(selection)
    from headway.evaluate.prediction import predict as compute
    from headway.evaluate.tables import print_predictions

    result = compute(loaded, inputs)
    for note in result.notes:
        tell(f"headway: {note}")
    if json:
        print_json(result.as_dict())
        return EXIT_DONE
    print_predictions(result.rows)
    return EXIT_DONE


def generate(
    run: str,
    /,
    *,
    prompt: str = "\n",
    tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    checkpoint: Checkpoint = "best",
    runs: Runs = Path("runs"),
    trust: Trust = (),
    json: Json = False,
) -> int:
    """Go on with a text, printed as it comes.

    Parameters
    ----------
    run
        Id or path of a run of a gpt, rnn, lstm, gru or ngram.
    prompt
        What the text starts with; a line break when absent.
    tokens
        How many tokens to draw.
    temperature
        Less than 1 keeps to the likely tokens, 0 to the likeliest.
    top_k
        Draw from so many likeliest tokens.
    top_p
        Draw from the fewest tokens that hold this probability together.
    seed
        Of the draws; another text each time when absent.
    """
    selection = _select(run, runs, checkpoint, trust)
    selection.refuse_unless_language("generate")
    loaded = _load(selection)
    from headway.evaluate.generation import generate as begin

    text = begin(
        loaded, prompt, num_tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    )  # fmt: skip
    _tell_unknown(text.unknown, "prompt")
    if json:
        print_json({"run_id": loaded.name, "prompt": prompt, "text": "".join(text.pieces)})
        return EXIT_DONE
    sys.stdout.write(prompt.lstrip("\n"))
    for piece in text.pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return EXIT_DONE


def translate(
    run: str,
    /,
    *texts: Values,
    beam: int = 4,
    checkpoint: Checkpoint = "best",
    runs: Runs = Path("runs"),
    trust: Trust = (),
    json: Json = False,
) -> int:
    """Translate sentences, one a line of the output.

    Parameters
    ----------
    run
        Id or path of a run of a transformer.
    texts
        Sentences of the language that the run reads.
    beam
        Beginnings that are searched at once; 1 takes the likeliest token at each step.
    """
    _refuse_options(texts)
    if not texts:
        raise UserError("translate needs a TEXT")
    selection = _select(run, runs, checkpoint, trust)
    selection.refuse_unless_pairs("translate")
    loaded = _load(selection)
    from headway.evaluate.translation import translate as search

    found = search(loaded, texts, beam=beam)
    if json:
        print_json({"run_id": loaded.name, "translations": [one.as_dict() for one in found]})
        return EXIT_DONE
    for one in found:
        print(one.translation)  # noqa: T201 - the command's output
    return EXIT_DONE


def score(
    run: str,
    /,
    *texts: Values,
    given: str | None = None,
    next: Annotated[int, Parameter(help="List so many likeliest tokens after each text.")] = 0,
    checkpoint: Checkpoint = "best",
    runs: Runs = Path("runs"),
    trust: Trust = (),
    json: Json = False,
) -> int:
    """Compute the log-probability of texts, token by token.

    Parameters
    ----------
    run
        Id or path of a run of a gpt, rnn, lstm, gru or ngram.
    texts
        What to score; several are compared.
    given
        What the first token is conditioned on: a line break when absent; with "" the first token is not scored.
    """
    _refuse_options(texts)
    if not texts:
        raise UserError("score needs a TEXT")
    selection = _select(run, runs, checkpoint, trust)
    selection.refuse_unless_language("score")
    loaded = _load(selection)
    from headway.evaluate.scoring import score as compute
    from headway.evaluate.tables import print_ranking, print_score

    scores = [compute(loaded, text, given=given, num_next=next) for text in texts]
    for found in scores:
        _tell_unknown(found.unknown, "text")
    if json:
        print_json({"run_id": loaded.name, "scores": [found.as_dict() for found in scores]})
        return EXIT_DONE
    for found in scores:
        print_score(found)
    if len(scores) > 1:
        print_ranking(scores)
    return EXIT_DONE


def export(
    run: str,
    /,
    *,
    to: str,
    out: Path | None = None,
    checkpoint: Checkpoint = "best",
    runs: Runs = Path("runs"),
    trust: Trust = (),
    json: Json = False,
) -> int:
    """Write a run's net for others to read, and check that it gives the same outputs.

    Parameters
    ----------
    run
        Id or path of a run.
    to
        safetensors, onnx or huggingface.
    out
        Folder for it, empty or new; export/TO of the run folder when absent.
    """
    from headway.evaluate.formats import check_format

    form = check_format(to)
    selection = _select(run, runs, checkpoint, trust)
    selection.data()
    loaded = _load(selection, device="cpu")
    from headway.evaluate.export import export as write

    result = write(loaded, form, out)
    if json:
        print_json(result.as_dict())
        return EXIT_DONE
    rows = [
        ["run", f"{result.run_id} at step {result.step}"],
        ["folder", result.folder],
        ["files", ", ".join(result.files)],
        ["checked", f"{result.checked_with} gives the run's outputs to {result.difference:.1e}"],
    ]
    print_table(["", ""], rows)
    return EXIT_DONE


def _select(run: str, runs: Path, checkpoint: str, trust: tuple[str, ...]) -> Selection:
    from headway.evaluate.selection import select

    return select(run, runs=runs, checkpoint=checkpoint, trust=trust)


def _load(selection: Selection, *, device: str | None = None) -> LoadedRun:
    from headway.evaluate.loading import load_run

    return load_run(selection, device=device)


def _refuse_options(given: tuple[str, ...]) -> None:
    """Raises a UserError for what looks like a mistyped option among inputs that may start with a dash."""
    for text in given:
        if text.startswith("--") and text[2:3].isalpha() and " " not in text:
            raise UserError(f"unknown option {text}; see --help, or write an input that starts so with a space before")


def _tell_unknown(characters: str, what: str) -> None:
    if characters:
        tell(f"headway: the {what} has characters that the run never saw ({characters!r}); it reads them as <unk>")

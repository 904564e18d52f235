"""Which checkpoint of which run: found, and refused where it cannot be used, before torch is imported."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.config.errors import UserError
from headway.config.reading import Tree, read_file
from headway.recipe import check_names
from headway.run import RunFolder, find_run


@dataclass(frozen=True)
class Selection:
    """A checkpoint of a run."""

    run: RunFolder
    tree: Tree
    """The recipe, its sections and kinds known but not validated."""
    step: int
    trust: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> Path:
        """Returns the checkpoint's folder."""
        return self.run.checkpoints / f"{self.step:08d}"

    def data(self) -> dict[str, Any]:
        """Returns data.json: `spec` and `reading`.

        Raises:
            UserError: the run has none.
        """
        data = self.run.read_json("data.json")
        if "spec" not in data or "reading" not in data:
            raise UserError(
                f"{self.run.id}: has no data.json, which says what its net reads; "
                f"headway eval {self.run.id} loads the data once and writes it"
            )
        return data

    def refuse_unless_language(self, verb: str) -> None:
        """Raises a UserError for a run that does not predict the next token of a text."""
        spec, reading = self.data()["spec"], self.data()["reading"]
        if spec["input_kind"] != "tokens" or spec.get("masked") or spec.get("num_classes"):
            raise UserError(
                f"{verb}: {self.run.id} is a {self._model} on {spec['input_kind']} that does not predict the next "
                "token; use a run of gpt, rnn, lstm, gru or ngram on data: {kind: text}"
            )
        if "vocabulary" not in reading:
            raise UserError(f"{verb}: {self.run.id} reads tokens that are no text; use a run on data: {{kind: text}}")

    def refuse_unless_target(self, verb: str) -> None:
        """Raises a UserError for a run that predicts neither a class nor real values."""
        spec = self.data()["spec"]
        if spec.get("num_classes") is None and spec.get("target_size") is None:
            raise UserError(
                f"{verb}: {self.run.id} is a {self._model} on {spec['input_kind']} whose target is neither a class nor "
                "real values; for text there are headway generate, headway score and headway translate"
            )

    def refuse_unless_pairs(self, verb: str) -> None:
        """Raises a UserError for a run that reads no sentences to translate."""
        data = self.data()
        if data["spec"]["input_kind"] != "pairs" or "pairs" not in data["reading"]:
            raise UserError(
                f"{verb}: {self.run.id} is a {self._model} on {data['spec']['input_kind']}; "
                "use a run of a transformer on data: {kind: translation}"
            )

    @property
    def _model(self) -> str:
        return str((self.tree.get("model") or {}).get("kind", "net of your own"))


def select(
    run: str | Path, *, runs: str | Path = "runs", checkpoint: str = "best", trust: Collection[str] = ()
) -> Selection:
    """Returns a checkpoint of a run.

    Args:
        run: its id or path.
        runs: the folder of run folders.
        checkpoint: `best`, `last`, or a step.
        trust: modules outside headway that the recipe may name.

    Raises:
        UserError: there is no such run or checkpoint, or its recipe names code that is not trusted.
    """
    folder = find_run(Path(runs), str(run))
    try:
        tree = check_names(read_file(folder.recipe), trust=trust)
    except UserError as error:
        raise UserError(f"{folder.id}/recipe.yaml: {error}") from None
    return Selection(folder, tree, _step(folder, checkpoint), tuple(trust))


def _step(run: RunFolder, checkpoint: str) -> int:
    found = sorted(int(path.name) for path in run.checkpoints.glob("*") if path.name.isdigit())
    if not found:
        state = run.status().get("state", "unknown")
        raise UserError(f"{run.id}: has no checkpoint (it is {state}); headway fit --resume {run.id} makes one")
    if checkpoint == "last":
        return found[-1]
    if checkpoint == "best":
        best = run.status().get("best") or {}
        step = best.get("step")
        if step is None:
            raise UserError(f"--checkpoint: {run.id} has no best one yet, before its first validation; use last")
    elif checkpoint.isascii() and checkpoint.isdigit():
        step = int(checkpoint)
    else:
        raise UserError(f"--checkpoint: {checkpoint!r} should be best, last or a step")
    if step not in found:
        raise UserError(
            f"--checkpoint: {run.id} has none of step {step}; there is {' and '.join(str(step) for step in found)}"
        )
    return int(step)

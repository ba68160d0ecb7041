"""The same notebook goes on from what it has made: with the recipe `continue`, `START_FROM` names
the folder of an earlier run, GRPO begins with its adapter, at 0.3 of the rate, and draws rows
that have not been drawn yet. With `PUBLISH_AS=user/model` the result is uploaded in the layout
from which the judges restore: `<step>/model_params`."""

import pathlib
import shutil

import kagglehub

from submission.bench.settings.config import Run


def publish(run: Run, step: pathlib.Path, card: str) -> str | None:
    """Uploads a step as a Kaggle model; returns its id, or None if it was not asked for or failed.

    Args:
      run: has the id, `user/model`.
      step: the folder of the step.
      card: the model card, as Markdown.
    """
    if not run.publish_as:
        return None
    folder = step.parent.parent / "published"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(step / "model_params", folder / step.name / "model_params")
    (folder / "README.md").write_text(card)
    handle = f"{run.publish_as}/flax/{run.model.name.replace('_', '-')}-lora"
    try:
        kagglehub.model_upload(handle, str(folder), license_name="Gemma", version_notes=run.recipe)
    except Exception as error:  # the run is over, and what it made is on the disk
        print(f"Could not publish {handle}: {error}\nUpload {folder} by hand.")
        return None
    return run.publish_as

"""The result as a model on Kaggle, in the layout from which the judges restore it."""

import pathlib
import shutil

import kagglehub

from submission.bench.policy.hosts import this_host
from submission.bench.settings.config import Run
from submission.bench.settings.limits import within


def publish(run: Run, step: pathlib.Path, card: str, seconds: float) -> str | None:
    """Uploads a step as a Kaggle model, in so many seconds; returns its id, or None.

    None if it was not asked for, or has failed, or has not ended in time.
    """
    if not run.publish_as or this_host():
        return None
    folder = step.parent.parent / "published"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(step / "model_params", folder / step.name / "model_params")
    (folder / "README.md").write_text(card)
    handle = f"{run.publish_as}/flax/{run.model.name.replace('_', '-')}-lora"
    try:
        notes = {"license_name": "Gemma", "version_notes": run.recipe}
        within(max(1.0, seconds), lambda: kagglehub.model_upload(handle, str(folder), **notes))
    except Exception as error:  # the run is over, and what it made is on the disk
        print(f"Could not publish {handle}: {error}\nUpload {folder} by hand.")
        return None
    print(f"{run.publish_as} is private if it is new: make it public for the judges on "
          f"https://www.kaggle.com/models/{run.publish_as}/settings")  # fmt: skip
    return run.publish_as

"""How a stage is run, saved and resumed.

Both stages do the same things around their updates: they keep the clock, set the rate, write the
log, save, and go on where a killed run had saved. That is a `Stage`. It stands where Tunix's
trainer has its checkpoint manager, because this is what the trainer calls after every update.

A save is due after some steps, after some minutes, and at the end. When a run goes on, adapter,
optimizer, log, and the stage's own state (places in the data, random draws, running rates) are
those of the save, so that on one machine the interrupted run and the unbroken one end with the
same bits.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from submission.bench.answers.scoring import require_parts
from submission.bench.policy.cluster import REFERENCES
from submission.bench.policy.hosts import host_count, lead, require_same
from submission.bench.policy.updates import make_schedule, use_adapter_only_step
from submission.bench.run.budget import Deadline, Pace, StopRequest
from submission.bench.run.checkpoints import (
    FACTS,
    SaveError,
    checkpoint_steps,
    digest,
    free_name,
    remove_step,
    restore_newest,
    write_step,
)
from submission.bench.run.metrics import SilentBar, StepLog, all_finite, read_lines
from submission.bench.run.run_folder import RunFolder, read_json
from submission.bench.settings.config import Run, pick

# Stages between SFT and GRPO, by name: (policy, tokenizer, rows, session, deadline) -> report.
MORE_STAGES: dict[str, Callable[..., dict[str, Any]]] = {}
# What a part, stage or reference needs before anything is trained: (run, tokenizer) -> None.
REQUIREMENTS: dict[str, Callable[[Run, Any], None]] = {}
FIRST_STEP = 4.0  # times the first step of SFT, which compiles one program: that of GRPO has more


def require_chapters(run: Run, tokenizer: Any) -> None:
    """Is all here that the recipe needs?

    Raises:
      ValueError: a reward part, a stage or a reference is not, or a helper does not fit the policy.
    """
    require_parts(run.profile.rewards)
    where = " A recipe's own notebook has its stages: build_notebook.py --recipe NAME -o FILE."
    for name in run.profile.stages:
        pick("stage", name, MORE_STAGES, where)
    pick("reference", run.profile.grpo.reference, REFERENCES, where)
    used = {*run.profile.rewards.extras, *run.profile.stages, run.profile.grpo.reference}
    for name in used & REQUIREMENTS.keys():
        REQUIREMENTS[name](run, tokenizer)


def finished_stage(folder: RunFolder, name: str) -> dict[str, Any] | None:
    """The report of a stage that has come to its end, with its history."""
    report = folder.finished_stage(name)
    if report is None:
        return None
    print(f"{name} is over: {report['steps']} steps")
    history = [line for line in read_lines(folder.metrics) if line["stage"] == name]
    return {**report, "history": history}


def no_stage(name: str) -> dict[str, Any]:
    """The report of a stage that a recipe leaves out."""
    nothing = {"steps": 0, "planned": 0, "seconds": 0.0, "tokens": 0, "skipped": 0}
    return {"name": name, **nothing, "better_save": None, "history": []}


@dataclasses.dataclass
class Session:
    """What all stages of a run share."""

    run: Run
    mesh: Mesh
    folder: RunFolder
    deadline: Deadline
    stop: StopRequest = dataclasses.field(default_factory=StopRequest)
    listeners: Sequence[Callable[[dict[str, Any]], None]] = ()  # of the lines of the log
    earlier: dict[str, Any] = dataclasses.field(default_factory=dict)  # state of an earlier run
    save_seconds: float = 0.0  # of the slowest save so far
    evaluation_seconds: float = 0.0  # of the last evaluation
    first_step_seconds: float = 0.0  # of the slowest first step of a stage so far: it compiles

    @property
    def chips(self) -> int:
        """How many learn together, on all hosts."""
        return host_count() * self.mesh.devices.size


def no_signs(history: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """For a stage that cannot go astray."""
    return [], False


def no_score(history: list[dict[str, Any]]) -> None:
    """For a stage whose saves are not compared."""


class Stage:
    """One stage of a run, in the place of its trainer's checkpoint manager."""

    def __init__(
        self,
        session: Session,
        name: str,
        settings: Any,
        deadline: Deadline,
        *,
        subfolder: str,
        shown: tuple[str, ...],
        keep: int,
        always: tuple[int, ...] = (),
        updates_per_step: int = 1,
        spare: float = 0.0,
        state: Callable[[], dict[str, Any]] = dict,
        signs: Callable[[list[dict[str, Any]]], tuple[list[str], bool]] = no_signs,
        score: Callable[[list[dict[str, Any]]], tuple[float, float] | None] = no_score,
    ) -> None:
        """A stage under a deadline.

        Args:
          session: the run.
          name: sft or grpo, as in the log.
          settings: has `steps`, `save_every` and `optimizer`.
          deadline: after which no step may end.
          subfolder: of the checkpoints.
          shown: the metrics of the progress line.
          keep: how many of the last steps stay on the disk.
          always: steps that stay as well.
          updates_per_step: of the trainer.
          spare: seconds that a step may last beyond a typical one and still end in time.
          state: gives the stage's own state, for a save.
          signs: what is wrong with the last lines of the log, and whether it is past a limit.
          score: how good the policy is by the last lines of the log, and the standard error.
        """
        self.session, self.profile = session, session.run.profile
        self.name, self.settings = name, settings
        self.deadline, self.shown, self.spare, self.state = deadline, shown, spare, state
        self.keep, self.always, self.updates_per_step = keep, always, updates_per_step
        self.saves = session.folder.checkpoints / subfolder
        self.restored: dict[str, Any] = {}  # the stage's own state, from the save it goes on from
        self.saving_seconds = 0.0
        self.returns: list[int] = []  # steps after which it went back to a good save
        self._signs, self._warned, self._score = signs, [], score
        self._schedule = make_schedule(settings.optimizer, settings.steps)

    def attach(self, trainer: Any, remat: bool) -> None:
        """Takes a trainer over, and puts it where a killed run had saved, if there was one."""
        began_as = jax.tree.map(lambda x: x, nnx.state(trainer.model, nnx.LoRAParam))
        facts = restore_newest(
            self.saves, trainer.model, trainer.optimizer, self.session.folder.fingerprint
        )
        if facts and not facts["step"]:  # what SFT left; a stage after it may have gone on
            nnx.update(trainer.model, began_as)
        self.start = start = facts["step"] // self.updates_per_step if facts else 0
        if start:
            self.restored, self.returns = facts["state"], list(facts["returns"])
            print(f"{self.name} goes on after step {start}")
        self.pace = Pace(
            self.settings.steps,
            self.deadline,
            start=start,
            first=FIRST_STEP * self.session.first_step_seconds,
            spare=self.spare,
            told_to_stop=lambda: self.session.stop.of_any_host() or self.lost,
            state=facts["pace"] if start else None,
        )
        self.log = StepLog(
            self.session.folder.metrics,
            self.name,
            self.shown,
            steps=self.settings.steps,
            start=start,
            most_skipped=self.profile.most_skipped,
            listeners=self.session.listeners,
            plan=self.profile.planned.get(self.profile.model.name, {}).get(self.name),
        )
        self._step = start
        self._saved: int | None = start * self.updates_per_step if start else None
        self._last_save = time.monotonic()
        accumulated = trainer.config.get_with_default("gradient_accumulation_steps", 1)
        trainer._train_steps = start * self.updates_per_step
        trainer._iter_steps = trainer._train_steps * accumulated
        trainer.checkpoint_manager = self
        trainer._pbar = SilentBar()
        by_token = getattr(self.settings, "aggregation", "token-mean") == "token-mean"
        parts = getattr(self.settings, "parts", 1)
        use_adapter_only_step(trainer, remat, self.rate, self._report, by_token, parts)

    @property
    def step(self) -> int:
        """The number of the step under way, counted from 1."""
        return self._step

    def rate(self) -> float:
        """The learning rate of the step under way."""
        slower = self.profile.guards.slower ** len(self.returns)
        return slower * float(self._schedule(self.pace.progress * self.settings.steps))

    @property
    def lost(self) -> bool:
        """Has it gone back to a good save more often than it may?"""
        return len(self.returns) > self.profile.guards.returns

    def record(self, **numbers: Any) -> None:
        """Takes numbers of the step under way."""
        self.log.add(self._step, **numbers)

    def _report(self, loss: Any, aux: Any, grad_norm: Any) -> None:
        names = {"kl": "kl", "entropy": "entropy", "pass_tokens": "tokens"}
        names["preferred"] = "rewards/accuracy"
        if not getattr(self.settings, "beta", 0.0):
            del names["kl"]  # without the term it is not computed
        beside = {name: aux[of] for name, of in names.items() if aux and of in aux}
        self.record(loss=loss, grad_norm=grad_norm, **beside)

    def steps(self) -> Iterator[int]:
        """The numbers of the steps to make, counted from 0."""
        for step in self.pace.steps():
            self._step = step + 1
            self.log.begin(step + 1, self.pace.planned)
            self.log.add(step + 1, learning_rate=self.rate())
            if self.pace.by_time:
                self.log.add(step + 1, planned=self.pace.planned)
            began = time.monotonic()
            yield step
            if step == self.start:
                took = time.monotonic() - began
                self.session.first_step_seconds = max(took, self.session.first_step_seconds)

    # --- What Tunix's trainer calls ------------------------------------------------------------

    def save(
        self,
        update: int,
        policy: nnx.Module,
        optimizer: nnx.Optimizer,
        save_only_lora_params: bool = True,
        force: bool = False,
        custom_metadata: Any = None,
    ) -> bool:
        """After an update: ends the step, and saves it if that is due."""
        if update % self.updates_per_step or not update:
            return False
        step = update // self.updates_per_step
        if not force:
            self.log.end(step)
            if self._gone_astray(step, policy, optimizer):
                return False
        last = step >= self.settings.steps
        if not (force or last or step % self.settings.save_every == 0):
            late = time.monotonic() - self._last_save > 60 * self.profile.save_minutes
            if not lead(lambda: late, "whether to save"):
                return False
        self._save(update, policy, optimizer, needed=force or last)
        return True

    def latest_step(self) -> int | None:
        """The last update that was saved."""
        return self._saved

    def close(self) -> None:
        """Ends the log."""
        self.log.close()

    def _save(self, update: int, policy: nnx.Module, optimizer: Any, needed: bool) -> None:
        self.log.flush()
        start = time.monotonic()
        if not all_finite(nnx.state(policy, nnx.LoRAParam)):
            raise FloatingPointError(
                f"{self.name}: the adapter is not finite after update {update}. It was not saved; "
                "the checkpoints are good. Lower the learning rate of this stage."
            )
        if host_count() > 1:
            require_same(digest(nnx.state(policy, nnx.LoRAParam)), f"after update {update}")
        if lead(lambda: self._write(update, policy, optimizer, needed), "a save"):
            self._saved = update
        self._last_save = time.monotonic()
        self.saving_seconds += self._last_save - start
        self.session.save_seconds = max(self.session.save_seconds, self._last_save - start)

    def _write(self, update: int, policy: nnx.Module, optimizer: Any, needed: bool) -> bool:
        facts = {
            "stage": self.name,
            "config": self.session.folder.fingerprint,
            "pace": self.pace.state(),
            "state": self.state(),
            "returns": self.returns,
            "good": not self._warned,
            "score": self._score(self._lines()),
        }
        for attempt in (1, 2):
            try:
                write_step(self.saves, update, policy, optimizer, facts)
                break
            except SaveError as error:
                self._prune(keep=1)  # room is made, as far as that can be done, for another attempt
                if attempt == 2 and needed:
                    raise
                if attempt == 2:
                    print(f"{error} Training goes on.")
                    return False
        self._prune(self.keep)
        return True

    def _lines(self) -> list[dict[str, Any]]:
        """The log since the stage began or last went back."""
        since = self.returns[-1] if self.returns else 0
        return [line for line in self.log.history if line["step"] > since]

    def _gone_astray(self, step: int, policy: nnx.Module, optimizer: nnx.Optimizer) -> bool:
        """Warns of signs of a collapse; past the limit, goes back to the last good save."""
        signs, past_limit = self._signs(self._lines())
        if signs and not self._warned:
            print(f"{self.name} {step}: {'; '.join(signs)}")
        self._warned = signs
        if not past_limit:
            return False
        self.log.flush()
        lead(self._set_astray_aside, "the way back")
        facts = restore_newest(self.saves, policy, optimizer, self.session.folder.fingerprint)
        if facts is None:
            raise RuntimeError(f"{self.name} went astray, and no save in {self.saves} loads.")
        if "optimizer_state" not in facts["digests"]:  # the warm start: it begins anew
            fresh = nnx.Optimizer(policy, optimizer.tx, wrt=nnx.LoRAParam)
            nnx.update(optimizer, nnx.state(fresh))
        self._saved = facts["step"]
        self.returns.append(step)
        self._warned = []
        print(
            f"{self.name} {step}: past the limit; back to the save of step {self._saved}, and on "
            f"at {self.profile.guards.slower:g} of the learning rate"
        )
        if self.lost:
            self.pace.ended = "it went astray again and again"
        return True

    def _set_astray_aside(self) -> None:
        """Leaves a good save as the newest one."""
        for saved in reversed(checkpoint_steps(self.saves)):
            if self._is_good(saved):
                break
            os.replace(self.saves / str(saved), free_name(self.saves, saved, "astray"))

    def _is_good(self, step: int) -> bool:
        """Was a step saved while there was no sign of a collapse?"""
        return bool(self._facts(step).get("good", True))

    def _facts(self, step: int) -> dict[str, Any]:
        """The facts of a save; of one that is damaged, that it is not good."""
        return read_json(self.saves / str(step) / FACTS, {"good": False})

    def _best(self) -> tuple[int | None, tuple[float, float]]:
        """The good save with the highest score, and its score."""
        scores = {
            step: tuple(facts["score"])
            for step in checkpoint_steps(self.saves)
            if (facts := self._facts(step)).get("good") and facts.get("score")
        }
        best = max(scores, key=lambda step: scores[step][0], default=None)
        return best, scores.get(best, (-math.inf, 0.0))

    def _prune(self, keep: int) -> None:
        """Removes all but the last steps, the last good one, and the best one."""
        steps = checkpoint_steps(self.saves)
        good = next((step for step in reversed(steps) if self._is_good(step)), None)
        for step in set(steps[:-keep]) - {*self.always, good, self._best()[0]}:
            remove_step(self.saves, step)

    def _better_save(self) -> int | None:
        """A save that scored higher than the stage did at its end, by more than chance."""
        step, (mean, error) = self._best()
        at_the_end = self._score(self._lines())
        if at_the_end is None:
            return None
        beyond_noise = 1.96 * math.hypot(error, at_the_end[1])
        return step if mean - at_the_end[0] > beyond_noise else None

    # --- The end --------------------------------------------------------------------------------

    def report(self, **numbers: Any) -> dict[str, Any]:
        """What is known of the stage at its end; a stage that was told to stop is not at it."""
        steps = self.log.history[-1]["step"] if self.log.history else 0
        if self.pace.ended:
            print(f"{self.name} ended after {steps} of {self.settings.steps} steps: "
                  f"{self.pace.ended}")  # fmt: skip
        self.session.stop.check()
        found = {
            "name": self.name,
            "steps": steps,
            "planned": self.pace.planned if self.pace.by_time else self.settings.steps,
            "seconds": round(sum(line["seconds"] for line in self.log.history), 1),
            "saving_seconds": round(self.saving_seconds, 1),
            "skipped": self.log.skipped,
            "returns": self.returns,
            "better_save": lead(self._better_save, "whether a save was better"),
            **numbers,
        }
        self.session.folder.finish_stage(found)
        return {**found, "history": self.log.history}


def save_first_submission(policy: nnx.Module, session: Session) -> None:
    """The adapter as SFT left it, as step 0 of what the judges look at, unless it is there."""
    actor, fingerprint = session.folder.checkpoints / "actor", session.folder.fingerprint
    facts = {"stage": "sft", "config": fingerprint, "pace": {}, "state": {}}

    def saved() -> None:
        if not (actor / "0").is_dir():
            write_step(actor, 0, policy, None, facts)

    lead(saved, "the first submission")


def restore_warm_start(policy: nnx.Module, session: Session) -> None:
    """Loads what a finished SFT has left.

    Raises:
      RuntimeError: none of its saves loads.
    """
    folder = session.folder
    if restore_newest(folder.checkpoints / "sft", policy, None, folder.fingerprint) is None:
        raise RuntimeError(
            f"SFT is over, but no save of it in {folder.checkpoints} loads. Start anew: move the "
            "folder away, or choose another one with OUT (or --out)."
        )

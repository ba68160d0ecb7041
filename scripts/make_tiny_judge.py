"""Make the judge of the `tiny` profile: an adapter that tells sound answers from others.

It is the tiny stock Gemma, taught to say yes or no to what the policy wrote: completions that it
sampled itself on the rows of SFT, labelled by the checker, and bundled traces, whole and with a
digit changed. What it says of completions on the rows of GRPO, which it has not seen, is measured.

    python scripts/make_tiny_judge.py [--shuffled] [--out DIR]     # about ten minutes on one core
"""

import argparse
import itertools
import pathlib
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from after import trained
from tunix.sft import peft_trainer

import tasks
from submission.bench.answers import prompts
from submission.bench.policy import losses, model, updates
from submission.bench.rows import data, packing, prepared
from submission.bench.run import budget, checkpoints, run_folder, samples, stages, statistics
from submission.bench.settings import config
from submission.essay import judged, profiles, recipes, rewards, sft

STEPS, ROWS, LENGTH, RATE = 900, 12, 176, 2e-3


class Verdict(NamedTuple):
    """A completion and whether it is right."""

    completion: prompts.Completion
    example: prompts.Example
    right: bool


def sampled(policy: Any, tokenizer: Any, session: Any, examples: Any, each: int) -> list[Verdict]:
    """Completions in format, labelled by the checker."""
    groups = samples.own_samples(policy, tokenizer, session, examples, each, rewards.reward_right)
    drawn = (sample for group in groups for sample in group)
    return [Verdict(s.completion, s.example, s.right) for s in drawn if s.completion.in_format]


def slips(rng: random.Random) -> Iterator[Verdict]:
    """Careful traces of unseen problems: whole, and with a digit changed."""
    new = itertools.islice(tasks.problems(3, "grpo"), 400)
    rows = (tasks.row(problem, "steps", "sft") for problem in new)
    yield from made([prompts.example_from_mapping(row, "a row") for row in rows], rng)


def made(examples: Sequence[prompts.Example], rng: random.Random) -> Iterator[Verdict]:
    """Bundled traces: whole, and with a digit changed."""
    for example in examples:
        places = [i for i, sign in enumerate(example.trace) if sign.isdigit()]
        if example.source.endswith("guess") or not places:
            continue
        yield Verdict(prompts.parse(prompts.render_target(example)), example, True)
        i, trace = rng.choice(places), example.trace
        wrong = rng.choice([digit for digit in "0123456789" if digit != trace[i]])
        spoilt = prompts.Completion("", True, trace[:i] + wrong + trace[i + 1 :], example.answer)
        yield Verdict(spoilt, example, False)


def taught(verdicts: Sequence[Verdict], tokenizer: Any, line: str) -> Iterator[data.Tokens]:
    """Prompts of the judge and its answer, as many right ones as wrong ones, for ever."""
    rng = random.Random(0)
    by_kind = [[v for v in verdicts if v.right == kind] for kind in (False, True)]
    while True:
        verdict = rng.choice(by_kind[rng.random() < 0.5])
        prompt = judged.judge_prompt(verdict.completion, verdict.example, line)
        answer = tokenizer.encode(judged.YES if verdict.right else judged.NO)[:1]
        yield data.Tokens([tokenizer.bos_id(), *tokenizer.encode(prompt)], answer)


def train(judge: Any, tokenizer: Any, stream: Iterator[data.Tokens], mesh: Any) -> None:
    """Teaches the adapter in place."""
    settings = config.Optimizer(peak_rate=RATE)
    schedule, seen = updates.make_schedule(settings, STEPS), []

    def report(loss: Any, *_: Any) -> None:
        seen.append(float(loss))
        if len(seen) % 100 == 0:
            print(f"{len(seen)} of {STEPS}: loss {np.mean(seen[-100:]):.3f}", flush=True)

    trainer = peft_trainer.PeftTrainer(
        judge,
        updates.make_optimizer(settings),
        peft_trainer.TrainingConfig(
            eval_every_n_steps=STEPS, max_steps=STEPS, data_sharding_axis=(model.DATA_AXES,)
        ),
    )
    trainer.with_gen_model_input_fn(packing.packed_model_input)
    trainer.with_loss_fn(losses.chunked_sft_loss(1024))
    updates.use_adapter_only_step(trainer, rate=lambda: float(schedule(len(seen))), report=report)
    batches = packing.packed_batches(stream, ROWS, LENGTH, tokenizer.pad_id())
    with mesh:
        trainer.train(itertools.islice(batches, STEPS), skip_jit=True)


def main() -> None:
    """Samples, teaches, measures, saves."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shuffled", action="store_true", help="labels at random: a control")
    parser.add_argument("--out", type=pathlib.Path, default=trained.ROOT / "data" / "judge")
    options = parser.parse_args()
    run = profiles.read_run({"PROFILE": "tiny"}, "cpu")
    helper = recipes.JUDGES["tiny"]["helper"]
    ((line, _),) = helper.rubrics.of("")
    start = config.changed(run.profile, recipes.SHORT)
    folder = model.locate(run.model, 1)
    tokenizer, mesh = model.load_tokenizer(folder), model.make_mesh()

    def stock(adapter: config.Adapter) -> Any:
        return model.add_adapter(model.load_stock(run.model, folder, mesh), adapter, 0, mesh)

    with tempfile.TemporaryDirectory() as work:
        run = config.changed(run, {"profile": start, "out": f"{work}/run"})
        rows = prepared.rows_of_run(run, tokenizer)
        opened = run_folder.open_run_folder(run)
        session = stages.Session(run, mesh, opened, budget.Deadline.after(1e6))
        policy = stock(start.adapter)
        sft.train_sft(policy, tokenizer, rows["sft"], session, session.deadline)
        teacher = stock(start.adapter)
        checkpoints.restore_adapter(teacher, pathlib.Path(recipes.TEACHERS["tiny"]["helper"].step))
        asked = list({e.question: e for e in rows["sft"].examples}.values())
        unseen = rows["grpo"].examples[:400]
        seen = [v for p in (policy, teacher) for v in sampled(p, tokenizer, session, asked, 4)]
        tests = {
            "after SFT": sampled(policy, tokenizer, session, unseen, 2),
            "after GRPO": sampled(teacher, tokenizer, session, unseen, 2),
            "with one digit changed, beside whole ones": list(slips(random.Random(1))),
        }
        opened.release()
    seen += made(rows["sft"].examples, random.Random(0))
    print(f"{len(seen)} verdicts, {np.mean([v.right for v in seen]):.2f} of them right")
    if options.shuffled:
        labels = [v.right for v in seen]
        random.Random(0).shuffle(labels)
        seen = [v._replace(right=right) for v, right in zip(seen, labels, strict=True)]
    judge = stock(helper.adapter)
    train(judge, tokenizer, taught(seen, tokenizer, line), mesh)
    seat = judged.Judge(judge, tokenizer, mesh, helper.rubrics,
                        run.cache_length + helper.rubrics.line_tokens)  # fmt: skip
    for name, verdicts in tests.items():
        scores = seat([v.completion for v in verdicts], [v.example for v in verdicts], {}, None)
        auc = statistics.area_under_curve(np.array(scores), np.array([v.right for v in verdicts]))
        print(f"AUC on {len(verdicts)} unseen completions {name}: {auc:.3f}")
    with tempfile.TemporaryDirectory() as work:
        facts = {"stage": "judge", "config": "", "pace": {}, "state": {}}
        checkpoints.write_step(pathlib.Path(work) / "steps", 0, judge, None, facts)
        shutil.rmtree(options.out, ignore_errors=True)
        options.out.mkdir(parents=True)
        shutil.copytree(
            pathlib.Path(work) / "steps" / "0" / "model_params",
            options.out / "model_params",
            ignore=shutil.ignore_patterns("commit_success.txt"),  # it names the folder of today
        )


if __name__ == "__main__":
    main()

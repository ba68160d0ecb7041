# %% [markdown]
# ### A model of the trace
#
# The policy writes completions of the rows of SFT, and the checker says which are right. From its
# own reading of them, frozen after SFT, a line is fitted that tells the two apart. It sees the
# hidden state at the last token, the mean over all, and how likely each token was: the mean, the
# least, and the end alone, where the answer stands. In GRPO its probability is the reward, and no
# gold answer is read any more. How well it tells right from wrong on prompts that it was not fitted to is its
# AUC: 1 is perfect, ½ a coin.

# %%
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

# %% tags=["modules-only"]
from submission.bench.answers.prompts import Completion, Example, render_prompt
from submission.bench.answers.scoring import EXTRA_PARTS, Context
from submission.bench.policy.losses import states_of_tokens, token_log_probs
from submission.bench.policy.model import frozen_copy
from submission.bench.rows.data import Mixture
from submission.bench.run.budget import Deadline
from submission.bench.run.samples import in_passes, own_samples
from submission.bench.run.stages import MORE_STAGES, Session, finished_stage, no_stage
from submission.bench.run.statistics import Line, area_under_curve, fit_line, sigmoid
from submission.essay.rewards import reward_right


# %%
END = 6  # tokens: an answer, its closing tag and EOS, or so


@functools.partial(jax.jit, static_argnames=("pad_id", "prompt"))
def trace_features(
    graph: nnx.GraphDef, state: nnx.State, tokens_BT: jax.Array, pad_id: int, prompt: int
) -> jax.Array:
    """What the policy makes of prompts, padded on the left to `prompt` tokens, and completions.

    Returns:
      float32 [B, 2 D + 4]: the hidden state at the last token, and the mean over all; the mean
      and the least log-probability of the completion's tokens; the sum and the least at its end.
    """
    model, counts_BT = nnx.merge(graph, state), tokens_BT != pad_id
    hidden_BTD = states_of_tokens(model, tokens_BT, pad_id)
    written_BC, counts_BC = tokens_BT[:, prompt:], counts_BT[:, prompt:]
    logps_BC, _ = token_log_probs(model, hidden_BTD[:, prompt - 1 : -1], written_BC, counts_BC)
    size_B1 = counts_BC.sum(1, keepdims=True)
    at_end_BC = counts_BC & (jnp.arange(counts_BC.shape[1]) >= size_B1 - END)
    sure = [logps_BC.sum(1) / size_B1[:, 0], logps_BC.min(1),
            jnp.where(at_end_BC, logps_BC, 0.0).sum(1), jnp.where(at_end_BC, logps_BC, 0.0).min(1)]  # fmt: skip
    hidden_BTD = hidden_BTD.astype(jnp.float32)
    last_B1D = jnp.take_along_axis(hidden_BTD, prompt + size_B1[..., None] - 1, axis=1)
    mean_BD = (hidden_BTD * counts_BT[..., None]).sum(1) / counts_BT.sum(1, keepdims=True)
    return jnp.concatenate([last_B1D[:, 0], mean_BD, jnp.stack(sure, axis=1)], axis=1)


class TraceScorer:
    """What the policy after SFT thinks of completions, through a fitted line."""

    rows = 64  # at a time

    def begin(self, policy: nnx.Module, tokenizer: Any, session: Session) -> None:
        """Freezes the policy as it is."""
        self.graph, self.state = nnx.split(frozen_copy(policy))
        self.tokenizer, self.mesh = tokenizer, session.mesh
        self.lengths, self.line = session.run.profile.lengths, None

    def features(self, questions: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """Features_BF of completions, each after its question and with an EOS."""
        tokenizer, pad_id = self.tokenizer, self.tokenizer.pad_id()
        prompt, most = self.lengths.prompt, self.lengths.completion + 1
        asked = [[tokenizer.bos_id(), *tokenizer.encode(render_prompt(q))] for q in questions]
        said = [[*tokenizer.encode(text), tokenizer.eos_id()][:most] for text in texts]
        ids = [
            [*before, *after, *[pad_id] * (most - len(after))]
            for before, after in zip(asked, said, strict=True)
        ]
        look = functools.partial(
            trace_features, self.graph, self.state, pad_id=pad_id, prompt=prompt
        )
        length = prompt + most
        return in_passes(look, ids, rows=self.rows, length=length, pad_id=pad_id, mesh=self.mesh)

    def __call__(
        self,
        completions: Sequence[Completion],
        examples: Sequence[Example],
        parts: Mapping[str, Sequence[float]],
        context: Context,
    ) -> list[float]:
        """The probability that each is right, by the line; 0 out of format.

        Raises:
          ValueError: nothing has been fitted yet.
        """
        if self.line is None:
            raise ValueError("The model of the trace is not trained: its stage comes before GRPO.")
        features_BF = self.features([e.question for e in examples], [c.text for c in completions])
        values = sigmoid(self.line.log_odds(features_BF))
        return [float(v) * c.in_format for v, c in zip(values, completions, strict=True)]


trace_scorer = EXTRA_PARTS["trace_model"] = TraceScorer()


# %%
def train_trace_model(
    policy: nnx.Module,
    tokenizer: Any,
    rows: Mapping[str, Mixture],
    session: Session,
    deadline: Deadline,
) -> dict[str, Any]:
    """Samples, labels, fits; returns how good it is on prompts kept apart."""
    settings, start = session.run.profile.stages["trace_model"], time.monotonic()
    trace_scorer.begin(policy, tokenizer, session)
    if (report := finished_stage(session.folder, "trace_model")) is not None:
        trace_scorer.line = Line(*report["line"])
        return report
    rng = np.random.default_rng(session.run.seed)
    examples = list({e.question: e for e in rows["sft"].examples}.values())  # each question once
    chosen = [examples[i] for i in rng.permutation(len(examples))[: settings.prompts]]
    drawn = own_samples(policy, tokenizer, session, chosen, settings.generations, reward_right)
    samples = [sample for group in drawn for sample in group]
    right_N = np.array([float(sample.right) for sample in samples])
    if right_N.min() == right_N.max():
        raise ValueError("All samples are right or all are wrong: there is nothing to tell apart.")
    questions, texts = [s.example.question for s in samples], [s.completion.text for s in samples]
    features_NF = trace_scorer.features(questions, texts)
    labels_N = rng.permutation(right_N) if settings.shuffled else right_N
    first = round(settings.apart * len(chosen)) * settings.generations  # these are kept apart
    line = fit_line(features_NF[first:], labels_N[first:], settings.penalty)
    auc = area_under_curve(line.log_odds(features_NF[:first]), right_N[:first])
    print(f"trace_model: AUC {auc:.3f} on {first} samples kept apart, {right_N.mean():.2f} right")
    trace_scorer.line = line
    report = {**no_stage("trace_model"), "auc": round(auc, 4), "line": list(line),
              "tokens": sum(len(s.tokens) for s in samples),
              "seconds": round(time.monotonic() - start, 1)}  # fmt: skip
    session.folder.finish_stage(report)
    return report


MORE_STAGES["trace_model"] = train_trace_model

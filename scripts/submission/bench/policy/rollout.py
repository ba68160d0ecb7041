"""Generation in training.

GRPO spends most of its time here. The engine below stands behind Tunix's own door for rollout
engines and drives the three programs above: prompts are padded to the next of a few lengths,
each distinct prompt is read once, and after every segment the sequences that are done are
taken out, so that a long tail of a few completions does not keep the whole batch waiting.
Lengths and batch sizes come from short lists, so that the compiled programs are few.

Beside speed, four things are unlike Tunix's stock engine:

- **The EOS stays in the completion.** The sampler cuts it off, and a policy that is never
  rewarded for stopping slowly forgets to stop.
- **Every call has a fresh key.** Without a seed, Tunix draws the *same* noise at every step.
- **The weights are the policy's, now.** They are read again at every call.
- **Old log-probabilities are taken at the sampling temperature**, like the new ones.

A completion that ran into the length limit is handed on with a mark at its end, so that it
fails the format.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tunix.generate import tokenizer_adapter
from tunix.rl.rollout import base_rollout

from submission.bench.answers.prompts import CUT_MARK
from submission.bench.policy.decoding import Decoder, Sampling
from submission.bench.policy.hosts import this_host
from submission.bench.policy.losses import completion_log_probs


def ended(tokens: np.ndarray, limit: int) -> bool:
    """Did a completion of the stock sampler, which comes without its EOS, end by itself?"""
    return len(tokens) < limit


def mark_cut(text: str, stopped: bool) -> str:
    """The text as rewards and evaluation see it: marked if it did not end by itself."""
    return text if stopped else text + CUT_MARK


@dataclasses.dataclass
class EngineConfig(base_rollout.RolloutConfig):
    """Tunix's settings, and those of the engine below."""

    segment: int = 128  # steps between two looks at what is done
    prompt_step: int = 128  # prompts are padded to a multiple of this
    completion_step: int = 256  # completions are trimmed to a multiple of this
    least_share: float = 1 / 8  # of the first batch: it shrinks no further
    alike: int = 0  # rows at a time of a step that reads equal beginnings once; 0: reads all rows
    vocabulary_chunk: int = 1024  # tokens per chip whose logits exist at a time, in log-probs


def left_padded(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> np.ndarray:
    """Rows of ids in an array, each at its right end; of a longer one the last ones.

    >>> left_padded([[5], [6, 7, 8]], 2, pad_id=0).tolist()
    [[0, 5], [7, 8]]
    """
    padded_BL = np.full((len(rows), length), pad_id, np.int32)
    for i, row in enumerate(rows):
        padded_BL[i, max(0, length - len(row)) :] = row[-length:]
    return padded_BL


def group_size(prompts: Sequence[str]) -> int:
    """The largest size of equal groups of the same prompt, beside each other.

    >>> group_size(["a", "a", "b", "b", "b", "b"]), group_size(["a", "b", "a"])
    (2, 1)
    """
    return math.gcd(*(len(list(run)) for _, run in itertools.groupby(prompts)))


def batch_sizes(rows: int, least_share: float) -> list[int]:
    """The rows that a shard may have, from all down by halves.

    >>> batch_sizes(64, 1 / 8), batch_sizes(3, 1 / 8)
    ([64, 32, 16, 8], [3, 2, 1])
    """
    sizes = [rows]
    while sizes[-1] > max(1, least_share * rows):
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def rows_to_keep(done_DR: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """For each shard, the rows that go on, and as many finished ones as make the shards equal.

    >>> done = np.array([[True, False, True, True], [True, True, True, True]])
    >>> rows_to_keep(done, [4, 2, 1]).tolist()
    [[1], [0]]
    """
    going = int((~done_DR).sum(axis=1).max())
    size = min(size for size in sizes if size >= going)
    if size == done_DR.shape[1]:
        return np.tile(np.arange(size, dtype=np.int32), (len(done_DR), 1))
    return np.argsort(done_DR, axis=1, kind="stable")[:, :size].astype(np.int32)


def ended_rows(written_BT: np.ndarray, eos_ids: Sequence[int]) -> list[np.ndarray]:
    """Each row up to and with its EOS; whole, if it has none.

    >>> [row.tolist() for row in ended_rows(np.array([[5, 1, 0], [5, 6, 7]]), [1])]
    [[5, 1], [5, 6, 7]]
    """
    ends_BT = np.isin(written_BT, eos_ids)
    lengths_B = np.where(ends_BT.any(axis=1), ends_BT.argmax(axis=1) + 1, written_BT.shape[1])
    return [row[:n] for row, n in zip(written_BT, lengths_B, strict=True)]


class PolicyRollout(base_rollout.BaseRollout):
    """A rollout engine that decodes in segments and lets go of what is done."""

    def __init__(
        self,
        rollout_actor: nnx.Module,
        tokenizer: Any,
        mesh: Any,
        rollout_config: EngineConfig,
    ) -> None:
        if rollout_config.seed is None:
            raise ValueError("RolloutConfig.seed is None: every step would draw the same noise.")
        self._policy, self._mesh = rollout_actor, mesh
        self._tokenizer = tokenizer_adapter.TokenizerAdapter(tokenizer)
        self._temperature = rollout_config.temperature
        self._chunk = rollout_config.vocabulary_chunk
        self.calls = 0  # how many keys have been used
        # Hears of completions as they end: (prompts, texts). What is asked of them can begin then.
        self.listener: Callable[[list[str], list[str]], None] | None = None

    @functools.lru_cache(maxsize=4)  # noqa: B019 (there is one engine)
    def _decoder(self, eos_ids: tuple[int, ...]) -> Decoder:
        return Decoder(self._policy, self._mesh, self.pad_id(), self._tokenizer.bos_id(), eos_ids)

    def _prompt_tokens(self, prompts: Sequence[str], limit: int) -> list[list[int]]:
        """Each prompt's tokens with their BOS, as the stock sampler makes them.

        Raises:
          ValueError: a prompt is too long. The stock sampler would be compiled anew, or fail.
        """
        rows = [[self._tokenizer.bos_id(), *self._tokenizer.encode(p)] for p in prompts]
        if (longest := max(map(len, rows))) > limit:
            raise ValueError(
                f"A prompt has {longest} tokens, over the limit of {limit}: leave such rows out, "
                "or raise `lengths.prompt` in the profile."
            )
        return rows

    def generate(
        self, prompts: list[str], rollout_config: EngineConfig, **kwargs: Any
    ) -> base_rollout.RolloutOutput:
        """One completion per prompt, each with its EOS if it ended by itself."""
        settings = rollout_config
        generations = group_size(prompts)
        rows = self._prompt_tokens(prompts[::generations], settings.max_prompt_length)
        key = jax.random.fold_in(settings.seed, self.calls)
        self.calls += 1
        eos_ids = settings.eos_tokens or [self.eos_id()]
        first = this_host() * len(prompts)  # of the completions of all hosts

        def text_of(row: np.ndarray) -> str:
            stopped = len(row) > 0 and row[-1] in eos_ids
            return mark_cut(self._tokenizer.decode(row[: len(row) - stopped].tolist()), stopped)

        def heard(indices: Sequence[int], rows: Sequence[np.ndarray]) -> None:
            if self.listener is not None and len(indices):
                self.listener([prompts[i] for i in indices], list(map(text_of, rows)))

        tokens = self._complete(rows, generations, key, settings, heard, first)
        padded_BP = left_padded(rows, settings.max_prompt_length, self.pad_id())
        padded_BP = padded_BP.repeat(generations, axis=0)
        return base_rollout.RolloutOutput(
            text=list(map(text_of, tokens)),
            logits=None,
            tokens=tokens,
            left_padded_prompt_tokens=padded_BP,
            logprobs=None,
        )

    def _complete(
        self,
        rows: Sequence[Sequence[int]],
        generations: int,
        key: jax.Array,
        settings: EngineConfig,
        heard: Callable[[Sequence[int], Sequence[np.ndarray]], None],
        first: int,
    ) -> list[np.ndarray]:
        """The completions' tokens, group after group; `heard` is told of those that end."""
        decoder = self._decoder(tuple(settings.eos_tokens or [self.eos_id()]))
        sampling = Sampling(settings.temperature, settings.top_p, settings.top_k)
        state = nnx.state(self._policy)
        limit, shards = settings.max_tokens_to_generate, decoder.shards

        step = settings.prompt_step
        length = min(-(-max(map(len, rows)) // step) * step, settings.max_prompt_length)
        missing = -len(rows) % shards  # each shard has as many prompts as every other
        prompts_PL = left_padded([*rows, *[rows[-1]] * missing], length, self.pad_id())
        is_real_P = np.arange(len(prompts_PL)) < len(rows)
        on_shards = functools.partial(jax.device_put, device=decoder.by_row)
        sequences = decoder.prefill(
            state, on_shards(prompts_PL), on_shards(is_real_P), key, jnp.int32(first),
            generations=generations, sampling=sampling,
        )  # fmt: skip

        written_BT = np.full((len(prompts_PL) * generations, limit), self.pad_id(), np.int32)
        written_BT[:, 0] = sequences.token
        sizes = batch_sizes(len(written_BT) // shards, settings.least_share)
        done_B = np.asarray(sequences.done)
        for index in range(1, limit, settings.segment):
            if done_B.all():
                break
            if index > 1:
                rows_DR = rows_to_keep(done_B.reshape(shards, -1), sizes)
                sequences = decoder.join(sequences, segment, on_shards(rows_DR))  # noqa: F821
            segment = decoder.segment(
                state, sequences, key, jnp.int32(index), jnp.int32(limit),
                steps=settings.segment, sampling=sampling, alike=settings.alike,
            )  # fmt: skip
            tokens_BS, done_B, was_done_B, row_B = jax.device_get(
                (segment.tokens, segment.done, sequences.done, sequences.row)
            )
            # A finished row that was kept to fill up a shard has padding only: nothing is lost.
            here = slice(index, index + settings.segment)
            row_B = row_B - first
            written_BT[row_B[~was_done_B], here] = tokens_BS[~was_done_B, : limit - index]
            ended = row_B[done_B & ~was_done_B]
            heard(ended, ended_rows(written_BT[ended], decoder.eos_ids))
        return ended_rows(written_BT[: len(rows) * generations], decoder.eos_ids)

    def get_per_token_logps(
        self, prompt_tokens: jax.Array, completion_tokens: jax.Array
    ) -> jax.Array:
        """The policy's own log-probabilities, at the temperature it samples at."""
        graph, state = nnx.split(self._policy)
        return completion_log_probs(
            graph,
            state,
            prompt_tokens,
            completion_tokens,
            pad_id=self.pad_id(),
            temperature=self._temperature,
            chunk=self._chunk,
        )

    def update_params(self, params: Any, filter_types: Any = None) -> None:
        """Nothing to do: the weights are the policy's own and are read at every call."""

    def pad_id(self) -> int:
        """The tokenizer's padding id."""
        return self._tokenizer.pad_id()

    def eos_id(self) -> int:
        """The tokenizer's eos id."""
        return self._tokenizer.eos_id()

    def model(self) -> nnx.Module:
        """The policy."""
        return self._policy

"""Ask a trained model, and see its trace as it is written.

    python scripts/chat.py [--checkpoint DIR] [--profile P] [--temperature T] [QUESTION]

DIR is the folder of a run, its `checkpoints/actor`, or one step in it. Without a question on the
command line, questions are read from the terminal, one a line, until it is closed.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from after import trained
from flax import nnx

from submission.bench.answers import prompts
from submission.bench.settings import config


class Speaker:
    """Writes answers token by token, with Tunix's own cache: two programs, whatever the length."""

    def __init__(
        self, policy: nnx.Module, tokenizer: Any, mesh: Any, lengths: config.Lengths
    ) -> None:
        self.policy, self.tokenizer, self.mesh, self.lengths = policy, tokenizer, mesh, lengths
        self.slots = lengths.prompt + lengths.completion
        graph = nnx.graphdef(policy)

        @jax.jit
        def forward(
            state: Any, cache: Any, tokens_1T: jax.Array, positions_1T: jax.Array, mask_1TL: Any
        ) -> tuple[jax.Array, Any]:
            """The logits_V after the last token, and the cache with all of them in it."""
            model_now = nnx.merge(graph, state)
            logits_1TV, cache = model_now(tokens_1T, positions_1T, cache, mask_1TL)
            return logits_1TV[0, -1], cache

        self.forward = forward

    def _empty_cache(self) -> dict[str, dict[str, jax.Array]]:
        shape = self.policy.config
        dtype = self.policy.embedder.input_embedding.get_value().dtype
        zeros_1LKH = jnp.zeros((1, self.slots, shape.num_kv_heads, shape.head_dim), dtype)
        layer = {"k": zeros_1LKH, "v": zeros_1LKH, "end_index": jnp.zeros((1,), jnp.int32)}
        return {f"layer_{i}": dict(layer) for i in range(shape.num_layers)}

    def answer(self, question: str, temperature: float = 0.0, seed: int = 0) -> Iterator[str]:
        """The text as it grows, up to the EOS or the limit; greedy at temperature 0.

        Raises:
          ValueError: the question is too long.
        """
        prompt = [self.tokenizer.bos_id(), *self.tokenizer.encode(prompts.render_prompt(question))]
        if len(prompt) > self.lengths.prompt:
            raise ValueError(
                f"The question has {len(prompt)} tokens with its prompt, over the limit of "
                f"{self.lengths.prompt}: ask it in fewer words."
            )
        state, cache, key = nnx.state(self.policy), self._empty_cache(), jax.random.key(seed)
        # Padded on the left, so that all questions have one shape.
        padding = self.lengths.prompt - len(prompt)
        tokens_T = np.array([self.tokenizer.pad_id()] * padding + prompt, np.int32)
        positions_T = np.maximum(np.arange(len(tokens_T)) - padding, 0).astype(np.int32)
        slots_L = np.arange(self.slots)
        written: list[int] = []
        for index in range(self.lengths.completion):
            first_slot = index + self.lengths.prompt - 1 if index else 0
            reach_T = first_slot + np.arange(len(tokens_T))
            mask_TL = (slots_L <= reach_T[:, None]) & (slots_L >= padding)
            with self.mesh:
                logits_V, cache = self.forward(
                    state, cache, tokens_T[None], positions_T[None], mask_TL[None]
                )
            if temperature:
                noise = jax.random.fold_in(key, index)
                token = int(jax.random.categorical(noise, logits_V / temperature))
            else:
                token = int(jnp.argmax(logits_V))
            if token == self.tokenizer.eos_id():
                return
            written.append(token)
            yield self.tokenizer.decode(written)
            tokens_T = np.array([token], np.int32)
            positions_T = positions_T[-1:] + 1


def say(speaker: Speaker, question: str, temperature: float, seed: int) -> None:
    """Prints an answer as it is written."""
    shown = ""
    for text in speaker.answer(question, temperature, seed):
        # A piece that is not a whole character yet is waited for.
        ready = text.removesuffix("\N{REPLACEMENT CHARACTER}")
        print(ready[len(shown) :], end="", flush=True)
        shown = ready
    print(flush=True)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="chat.py", description=__doc__.split("\n")[0])
    parser.add_argument("question", nargs="?", help="by default they are read from the terminal")
    trained.add_options(parser)
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, is greedy")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        run, _, policy, tokenizer, mesh = trained.opened(options)
        speaker = Speaker(policy, tokenizer, mesh, run.profile.lengths)
        questions = [options.question] if options.question else (x.strip() for x in sys.stdin)
        for number, question in enumerate(x for x in questions if x):
            try:
                say(speaker, question, options.temperature, options.seed + number)
            except ValueError as error:  # too long
                print(error, file=sys.stderr)
                if options.question:
                    return 1
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

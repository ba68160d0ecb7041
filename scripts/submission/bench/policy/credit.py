"""Credit where completions part.

GRPO gives every token of a completion the advantage of the whole: after a wrong digit, the right
sums that follow from it are punished too. The completions of a group that begin alike know more. A
beginning is worth the mean advantage of those that have it, and a token what it changes in that:
where some go another way than the others, it is as much better or worse as they fare. A token
after which all go on together changes nothing, nor does one behind the last fork, where there is
nobody to compare with.

The tokens of a completion add up to its own advantage. For a policy that is sure, whose completions
part at a token here and there, that is most of what can be known. Where all part at once, as those
of a larger model do in a long trace, everything would fall on the first tokens.
"""

from typing import Any

import numpy as np


def where_completions_part(advantages_B: Any, tokens_BC: Any, generations: int) -> np.ndarray:
    """Each token's advantage_BC: what it changes in the mean of those that begin alike.

    Args:
      advantages_B: of whole completions, group after group.
      tokens_BC: token ids of the completions, padded on the right.
      generations: completions in a group.

    >>> tokens = [[5, 6, 7], [5, 6, 7], [5, 6, 8], [5, 9, 7]]
    >>> where_completions_part([3.0, 3.0, -3.0, -3.0], tokens, generations=4).tolist()
    [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, -4.0], [0.0, -3.0, 0.0]]
    """
    advantages_PG = np.reshape(advantages_B, (-1, generations)).astype(np.float64)
    tokens_PGC = np.reshape(tokens_BC, (*advantages_PG.shape, -1))
    alike_PGG = np.ones((*advantages_PG.shape, generations), bool)  # so far
    worth_PG = np.broadcast_to(advantages_PG.mean(axis=1, keepdims=True), advantages_PG.shape)
    changes_PGC = np.zeros(tokens_PGC.shape, np.float32)
    for place in range(tokens_PGC.shape[2]):
        token_PG = tokens_PGC[:, :, place]
        still_PGG = alike_PGG & (token_PG[:, :, None] == token_PG[:, None])
        has_parted_PG = still_PGG.sum(axis=2) < alike_PGG.sum(axis=2)
        mean_PG = (still_PGG @ advantages_PG[:, :, None])[:, :, 0] / still_PGG.sum(axis=2)
        now_PG = np.where(has_parted_PG, mean_PG, worth_PG)
        changes_PGC[:, :, place] = now_PG - worth_PG
        worth_PG, alike_PGG = now_PG, still_PGG
    return changes_PGC.reshape(len(tokens_BC), -1)

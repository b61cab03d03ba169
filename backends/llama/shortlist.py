"""The few tokens that sampling can choose from when it begins by keeping the likeliest k. Pure code.

llama.cpp's samplers take a candidate for every token of the vocabulary, 150,000 in today's models, and throw all but
forty away. Finding the forty first, with four passes of vector code, takes a quarter of the time.

The vocabulary is laid out as a table, and the largest logit of each column is found. Any k tokens are among the
largest k no lower than the k-th largest of these maxima, since k columns hold one at least as large. So that is a
threshold: what reaches it contains the largest k, and little else.
"""

import numpy as np
import numpy.typing as npt

ROWS = 64
"""Of the table. The sum of the work on maxima and on candidates is about even from 32 to 256."""


def shortlist(logits: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Tokens, in ascending order, among which are the `count` with the largest logits (all that equal the smallest
    of them too). No logit may be NaN."""
    columns = len(logits) // ROWS
    if columns <= count:
        return np.arange(len(logits))
    maxima = logits[: ROWS * columns].reshape(ROWS, columns).max(axis=0)
    threshold = np.partition(maxima, columns - count)[columns - count]
    return np.flatnonzero(logits >= threshold)

"""How good the network is on held-out texts: exact match of the greedy answer, and perplexity, bucket by bucket."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sluice_models.dates.buckets import Bucket, Ids, iso
from sluice_models.dates.network import greedy

_ROWS = 1000


def measure(model: keras.Model, held_out: Mapping[int, Bucket]) -> dict[str, Any]:
    """Exact match and perplexity of all held-out texts, and by the bucket's bound in bytes."""
    losses = {bound: token_losses(logits(model, bucket), bucket.tokens[:, 1:]) for bound, bucket in held_out.items()}
    right = {bound: exact_matches(model, bucket) for bound, bucket in held_out.items()}
    return {
        **_report(np.concatenate([*right.values()]), np.concatenate([*losses.values()])),
        "buckets": {str(bound): _report(right[bound], losses[bound]) for bound in held_out},
    }


def _report(right: NDArray[np.bool_], losses: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "texts": len(right),
        "exact_match": round(float(right.mean()), 4),
        "perplexity": round(perplexity(losses), 5),
    }


def perplexity(losses: NDArray[np.float64]) -> float:
    """exp(sum of the tokens' negative log likelihoods / number of tokens); 1 where every token was certain.

    Every token counts alike, so what it is over several buckets is not the mean of what it is in each.
    """
    return float(np.exp(losses.sum() / losses.size))


def token_losses(logits: NDArray[np.float32], targets: Ids) -> NDArray[np.float64]:
    """The negative log likelihood of each token of the right answer, in nats.

    Args:
        logits: [texts, tokens, vocabulary].
        targets: int32 [texts, tokens], the end token among them.

    Returns:
        [texts, tokens].
    """
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    right = np.take_along_axis(shifted, targets[..., np.newaxis], axis=-1)[..., 0]
    return np.log(np.exp(shifted).sum(axis=-1)) - right


def logits(model: keras.Model, bucket: Bucket) -> NDArray[np.float32]:
    """With teacher forcing: each token's logits after the right tokens before it, [texts, tokens, vocabulary]."""
    given = {"text": bucket.text, "lengths": bucket.lengths, "tokens": bucket.tokens[:, :-1]}
    return model.predict(given, batch_size=_ROWS, verbose=0)


def exact_matches(model: keras.Model, bucket: Bucket) -> NDArray[np.bool_]:
    """Whether the greedy answer to each text is the right date, bool [texts]."""
    answers = tf.function(greedy)(model, tf.constant(bucket.text), tf.constant(bucket.lengths)).numpy()
    return np.array([*map(str.__eq__, iso(answers), iso(bucket.tokens))])

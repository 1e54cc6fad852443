"""The encoder-decoder: what is trained, and what runs with its weights: a step, the whole greedy decode, a score."""

import math

import keras
import tensorflow as tf
from keras import layers, ops

from sluice_models.dates.buckets import END, PAD, START, TOKENS

UNITS = 96
BYTES = 256
MAX_STEPS = 12  # of decoding; a date takes 11


def rewriter() -> keras.Model:
    """The untrained network, as it is trained.

    Takes `text` int32 [batch, byte], `lengths` int32 [batch] and `tokens` int32 [batch, token], the answer so far from
    the start token on; gives the logits of each next token, [batch, token, len(TOKENS)]. The layers "encoder" and
    "decoder" are its two halves; the encoder's last states, h and c, are the decoder's first.
    """
    text = keras.Input((None,), dtype="int32", name="text")
    lengths = keras.Input((), dtype="int32", name="lengths")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    logits, *_ = _decoder()([tokens, *_encoder()([text, lengths])])
    return keras.Model({"text": text, "lengths": lengths, "tokens": tokens}, logits, name="dates")


def _encoder() -> keras.Model:
    """Bytes and lengths to the states after each row's own last byte; what stands beyond it is not looked at."""
    text = keras.Input((None,), dtype="int32", name="text")
    lengths = keras.Input((), dtype="int32", name="lengths")
    number = ops.cumsum(ops.ones_like(text), axis=1)  # of each byte in its row, from 1
    within = number <= ops.expand_dims(lengths, 1)
    embedded = layers.Embedding(BYTES, 32, name="byte_embedding")(ops.where(within, text, 0))
    _, h, c = layers.LSTM(UNITS, return_state=True, name="encoder_lstm")(embedded, mask=within)
    return keras.Model([text, lengths], [h, c], name="encoder")


def _decoder() -> keras.Model:
    """Tokens and states to the logits of each next token and the states after."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    states = [keras.Input((UNITS,), name=name) for name in ("h", "c")]
    embedded = layers.Embedding(len(TOKENS), 16, name="token_embedding")(tokens)
    lstm = layers.LSTM(UNITS, return_sequences=True, return_state=True, name="decoder_lstm")
    hidden, h, c = lstm(embedded, initial_state=states)
    return keras.Model([tokens, *states], [layers.Dense(len(TOKENS), name="logits")(hidden), h, c], name="decoder")


def encode(model: keras.Model, text: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The decoder's first states h and c, float32 [batch, UNITS] each."""
    h, c = model.get_layer("encoder")([text, lengths])
    return h, c


def decode(model: keras.Model, token: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One step: the last token, int32 [batch], and the states give the logits [batch, token] and states of the next."""
    decoder = model.get_layer("decoder")
    embedded = decoder.get_layer("token_embedding")(token)
    hidden, (h, c) = decoder.get_layer("decoder_lstm").cell(embedded, [h, c])
    return decoder.get_layer("logits")(hidden), h, c


def greedy(model: keras.Model, text: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """The likeliest token at each step, and `PAD` after the end token: int32 [batch, MAX_STEPS]."""
    h, c = encode(model, text, lengths)
    token = tf.fill(tf.shape(lengths), START)
    ended = tf.fill(tf.shape(lengths), False)
    answer = []
    for _ in range(MAX_STEPS):
        logits, h, c = decode(model, token, h, c)
        token = tf.where(ended, PAD, tf.argmax(logits, axis=1, output_type=tf.int32))
        ended |= token == END
        answer.append(token)
    return tf.stack(answer, axis=1)


def log_probabilities(
    model: keras.Model, text: tf.Tensor, lengths: tf.Tensor, target: tf.Tensor, target_lengths: tf.Tensor
) -> tf.Tensor:
    """With teacher forcing: of each token of `target` after the right ones before it, float32 [batch, token], in nats.

    0 beyond a target's end, so that sums are right, and minus infinity for a token that there is not.
    """
    within = tf.sequence_mask(target_lengths, tf.shape(target)[1])
    exists = (target >= 0) & (target < len(TOKENS))
    answer = tf.where(exists, target, PAD)
    before = tf.pad(answer[:, :-1], [[0, 0], [1, 0]], constant_values=START)
    logits, *_ = model.get_layer("decoder")([before, *encode(model, text, lengths)])
    given = tf.gather(tf.nn.log_softmax(logits), answer, axis=2, batch_dims=2)
    return tf.where(within, tf.where(exists, given, -math.inf), 0.0)

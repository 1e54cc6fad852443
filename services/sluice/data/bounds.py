"""How much is too much, whatever the format: so that no file takes more memory or time than its own size explains."""

LINE_BYTES = 16 << 20  # of a row of text, which takes many times as much once it is parsed
ROW_BYTES = 64 << 20  # of a row of an array
NAME_LENGTH = 255  # characters of a group's or a session's: each row is kept with as many as the longest one has
AT_ONCE_BYTES = 4 << 20  # about as much as is read before it is turned into arrays
AT_ONCE_ROWS = 1024
DIRECTORY_BYTES = 1 << 20  # of the list of arrays in an .npz file
WEIGHT = 1e100  # sums of more of them than there can be rows are finite, and of their products with what metrics have
NUMBER = 1e38  # of a label or an answer: float32 holds it, and sums of its squares with weights are finite
ROW_GROUP_BYTES = 1 << 30  # of a Parquet file, in memory: a row of it can be as large
COLUMN_ORDER_BYTES = 64 << 20  # of a compressed array in Fortran order, which can only be read whole

# Pictures on a plain ground come to 50, arrays that are mostly padding to 200; nothing but one value over and over, to
# the 1032 of deflate.
_EXPANSION = 300
_ALWAYS_BYTES = 256 << 20


def is_bomb(expanded: int, size: int) -> bool:
    """Whether a file of `size` bytes holds more than any rows would."""
    return expanded > max(_ALWAYS_BYTES, _EXPANSION * size)

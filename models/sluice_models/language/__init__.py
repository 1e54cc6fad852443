"""Which language a short text is in: an LSTM over words, of which there may be millions (README.md)."""

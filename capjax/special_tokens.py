"""The four tokens that every vocabulary of capjax begins with."""

PAD_ID = 0  # after EOS, to the length of the batch
BOS_ID = 1  # read first, never written
EOS_ID = 2  # ends a caption
UNK_ID = 3  # a piece that the tokenizer does not know

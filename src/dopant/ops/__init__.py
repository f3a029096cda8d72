"""Operations on plain tensors; nothing here knows a class of this library."""

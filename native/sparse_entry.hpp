// A non-zero of a sparse matrix of up to 65536 columns; wider ones are several, side by side (library.cpp).
#pragma once

#include <cstdint>

namespace dopant {

constexpr int kMostSparseColumns = 1 << 16;

template <class T>
struct Entry {
  int32_t row;
  uint16_t column;
  T value;
};

}  // namespace dopant

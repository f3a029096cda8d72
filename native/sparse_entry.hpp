// A non-zero of a sparse matrix of up to 65536 columns; wider ones are several, side by side (library.cpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace dopant {

constexpr int kMostSparseColumns = 1 << 16;

template <class T>
struct Entry {
  int32_t row;
  uint16_t column;
  T value;
};

// By rows, and by columns within a row.
template <class T>
inline void sort_by_rows(std::vector<Entry<T>>& entries) {
  const auto before = [](const auto& a, const auto& b) { return a.row != b.row ? a.row < b.row : a.column < b.column; };
  if (!std::is_sorted(entries.begin(), entries.end(), before)) std::sort(entries.begin(), entries.end(), before);
}

}  // namespace dopant

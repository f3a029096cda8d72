// From rows of a batch (batch, features), as callers have them, to lanes (features, lanes), as kernels want them.
#pragma once

#include <algorithm>
#include <cstring>

#include "vec.hpp"

namespace dopant {

// A block of 4 × 4.
inline void transpose_block(const float* from, size_t from_stride, float* to, size_t to_stride) {
  const Vec<4> a = load<4>(from), b = load<4>(from + from_stride);
  const Vec<4> c = load<4>(from + 2 * from_stride), d = load<4>(from + 3 * from_stride);
  const Vec<4> ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Vec<4> ef = __builtin_shufflevector(a, b, 2, 6, 3, 7), gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store<4>(to, __builtin_shufflevector(ab, cd, 0, 1, 4, 5));
  store<4>(to + to_stride, __builtin_shufflevector(ab, cd, 2, 3, 6, 7));
  store<4>(to + 2 * to_stride, __builtin_shufflevector(ef, gh, 0, 1, 4, 5));
  store<4>(to + 3 * to_stride, __builtin_shufflevector(ef, gh, 2, 3, 6, 7));
}

// to (columns, rows) = from (rows, columns), transposed. The shorter way first, so that the cache lines that are read and
// written stay at hand until they are done with. A function of its own, or its counters do not stay in registers.
__attribute__((noinline)) inline void transpose(const float* from, size_t from_stride, int rows, int columns, float* to, size_t to_stride) {
  auto block = [&](int r, int j) {
    if (r + 4 <= rows && j + 4 <= columns)
      return transpose_block(from + r * from_stride + j, from_stride, to + j * to_stride + r, to_stride);
    for (int k = j; k < std::min(columns, j + 4); ++k)
      for (int s = r; s < std::min(rows, r + 4); ++s) to[k * to_stride + s] = from[s * from_stride + k];
  };
  if (rows < columns) {
    for (int j = 0; j < columns; j += 4)
      for (int r = 0; r < rows; r += 4) block(r, j);
  } else {
    for (int r = 0; r < rows; r += 4)
      for (int j = 0; j < columns; j += 4) block(r, j);
  }
}

// to[j · lanes + b] = from[b · features + j]; lanes beyond the batch become zero.
inline void to_lanes(const float* from, int batch, int features, float* to, int lanes) {
  if (lanes == 1) {
    std::memcpy(to, from, sizeof(float) * static_cast<size_t>(features));
    return;
  }
  transpose(from, static_cast<size_t>(features), batch, features, to, static_cast<size_t>(lanes));
  if (batch < lanes)
    for (int j = 0; j < features; ++j)
      for (int lane = batch; lane < lanes; ++lane) to[static_cast<size_t>(j) * lanes + lane] = 0.0f;
}

// to[b · to_stride + j] = from[j · lanes + b].
inline void from_lanes(const float* from, int batch, int features, int lanes, float* to, size_t to_stride) {
  if (lanes == 1)
    std::memcpy(to, from, sizeof(float) * static_cast<size_t>(features));
  else
    transpose(from, static_cast<size_t>(lanes), features, batch, to, to_stride);
}

}  // namespace dopant

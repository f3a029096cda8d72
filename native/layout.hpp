// From rows of a batch (batch, features), as callers have them, to lanes (features, lanes), as kernels want them.
#pragma once

#include <cstring>
#include <utility>

#include "vec.hpp"

namespace dopant {

// The first or the second halves of a and b, their numbers in turns.
template <int N, bool Second, int... I>
inline Vec<N> zip(Vec<N> a, Vec<N> b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I % 2 * N + I / 2 + Second * (N / 2))...);
}

// A block of N × N: taking turns log2 N times transposes.
template <int N>
inline void transpose_block(const float* from, size_t from_stride, float* to, size_t to_stride) {
  Vec<N> rows[N], zipped[N];
#pragma GCC unroll 16
  for (int r = 0; r < N; ++r) rows[r] = load<N>(from + r * from_stride);
#pragma GCC unroll 4
  for (int round = 1; round < N; round *= 2) {
#pragma GCC unroll 8
    for (int r = 0; r < N / 2; ++r) {
      zipped[2 * r] = zip<N, false>(rows[r], rows[r + N / 2], std::make_integer_sequence<int, N>());
      zipped[2 * r + 1] = zip<N, true>(rows[r], rows[r + N / 2], std::make_integer_sequence<int, N>());
    }
#pragma GCC unroll 16
    for (int r = 0; r < N; ++r) rows[r] = zipped[r];
  }
#pragma GCC unroll 16
  for (int r = 0; r < N; ++r) store<N>(to + r * to_stride, rows[r]);
}

// Blocks, the shorter way first, so that the cache lines that are read and written stay at hand until they are done with.
// A function of its own, or its counters do not stay in registers.
template <int N>
__attribute__((noinline)) void transpose_blocks(const float* from, size_t from_stride, int rows, int columns, float* to,
                                                size_t to_stride) {
  const auto block = [&](int r, int j) {
    transpose_block<N>(from + r * from_stride + j, from_stride, to + j * to_stride + r, to_stride);
  };
  if (rows < columns) {
    for (int j = 0; j < columns; j += N)
      for (int r = 0; r < rows; r += N) block(r, j);
  } else {
    for (int r = 0; r < rows; r += N)
      for (int j = 0; j < columns; j += N) block(r, j);
  }
}

// to (columns, rows) = from (rows, columns), transposed: in blocks of N, what is left in smaller ones.
template <int N = W>
inline void transpose(const float* from, size_t from_stride, int rows, int columns, float* to, size_t to_stride) {
  const int whole_rows = rows / N * N, whole_columns = columns / N * N;
  if constexpr (N == 1) {
    for (int r = 0; r < rows; ++r)
      for (int j = 0; j < columns; ++j) to[j * to_stride + r] = from[r * from_stride + j];
  } else {
    if (whole_rows > 0 && whole_columns > 0)
      transpose_blocks<N>(from, from_stride, whole_rows, whole_columns, to, to_stride);
    constexpr int Smaller = N > 4 ? N / 2 : 1;
    if (whole_columns < columns)
      transpose<Smaller>(from + whole_columns, from_stride, whole_rows, columns - whole_columns,
                         to + whole_columns * to_stride, to_stride);
    if (whole_rows < rows)
      transpose<Smaller>(from + whole_rows * from_stride, from_stride, rows - whole_rows, columns, to + whole_rows, to_stride);
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

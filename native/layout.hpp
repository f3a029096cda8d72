// From rows of a batch (batch, features), as callers have them, to lanes (features, lanes), as kernels want them.
#pragma once

#include <cstring>
#include <utility>

#include "vec.hpp"

namespace dopant {

// Processors move numbers faster within each four of a register than across. Of each four of a and b the first or the second
// half, in turns, `Size` numbers of each.
template <int N, int Size, bool Second, int... I>
inline Vec<N> zip(Vec<N> a, Vec<N> b, std::integer_sequence<int, I...>) {
  return shuffled<N, ((I / Size % 2 * N) + I / 4 * 4 + I % Size + (I % 4 / (2 * Size) + Second * (2 / Size)) * Size)...>(a, b);
}
// Every other four of a, then of b: those with even or with odd numbers.
template <int N, bool Odd, int... I>
inline Vec<N> deal(Vec<N> a, Vec<N> b, std::integer_sequence<int, I...>) {
  return shuffled<N, (I / (N / 2) * N + I % (N / 2) / 4 * 8 + Odd * 4 + I % 4)...>(a, b);
}

// The n-th fours of each four of K vectors, transposed as 4 × 4 numbers.
template <int N, int K>
inline void transpose_fours(Vec<N> (&a)[K]) {
  constexpr auto all = std::make_integer_sequence<int, N>();
  Vec<N> b[K];
#pragma GCC unroll 16
  for (int r = 0; r < K; r += 2) {
    b[r] = zip<N, 1, false>(a[r], a[r + 1], all);
    b[r + 1] = zip<N, 1, true>(a[r], a[r + 1], all);
  }
#pragma GCC unroll 16
  for (int r = 0; r < K; r += 4)
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      a[r + 2 * k] = zip<N, 2, false>(b[r + k], b[r + k + 2], all);
      a[r + 2 * k + 1] = zip<N, 2, true>(b[r + k], b[r + k + 2], all);
    }
}

// put(j, the j-th fours of all) of two vectors of 8 numbers, or of four of 16.
template <class Put>
inline void each_four(Vec<8> a, Vec<8> b, Put put) {
  constexpr auto all = std::make_integer_sequence<int, 8>();
  put(0, deal<8, false>(a, b, all));
  put(1, deal<8, true>(a, b, all));
}
template <class Put>
inline void each_four(Vec<16> a, Vec<16> b, Vec<16> c, Vec<16> d, Put put) {
  constexpr auto all = std::make_integer_sequence<int, 16>();
  const Vec<16> even = deal<16, false>(a, b, all), odd = deal<16, true>(a, b, all);
  const Vec<16> even_too = deal<16, false>(c, d, all), odd_too = deal<16, true>(c, d, all);
  put(0, deal<16, false>(even, even_too, all));
  put(1, deal<16, false>(odd, odd_too, all));
  put(2, deal<16, true>(even, even_too, all));
  put(3, deal<16, true>(odd, odd_too, all));
}

// A block of N × N, transposed: put(r, row) for each of its rows; row(r) is where the r-th is.
template <int N, class Row, class Put>
inline void transpose_rows(Row row, Put put) {
  Vec<N> a[N];
#pragma GCC unroll 16
  for (int r = 0; r < N; ++r) a[r] = load<N>(row(r));
  transpose_fours<N>(a);
  // The j-th four of a[4 i + k] is now the i-th four of row 4 j + k.
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const auto put_four = [&](int j, Vec<N> row) { put(4 * j + k, row); };
    if constexpr (N == 4) put(k, a[k]);
    if constexpr (N == 8) each_four(a[k], a[k + 4], put_four);
    if constexpr (N == 16) each_four(a[k], a[k + 4], a[k + 8], a[k + 12], put_four);
  }
}
template <int N, class Put>
inline void transpose_block(const float* from, size_t from_stride, Put put) {
  transpose_rows<N>([=](int r) { return from + r * from_stride; }, put);
}
// A block of 8 × 16, transposed: put(r, rows r and r + 1) for every other of its rows of 8.
template <class Put>
inline void transpose_8_by_16(const float* from, size_t from_stride, Put put) {
  Vec<16> a[8];
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) a[r] = load<16>(from + r * from_stride);
  transpose_fours<16>(a);
#pragma GCC unroll 2
  for (int k = 0; k < 4; k += 2)
    each_four(a[k], a[k + 4], a[k + 1], a[k + 5], [&](int j, Vec<16> rows) { put(4 * j + k, rows); });
}

// Blocks, the shorter way first, so that the cache lines that are read and written stay at hand until they are done with.
// A function of its own, or its counters do not stay in registers.
template <int N>
__attribute__((noinline)) void transpose_blocks(const float* from, size_t from_stride, int rows, int columns, float* to,
                                                size_t to_stride) {
  const auto block = [&](int r, int j) {
    float* there = to + j * to_stride + r;
    transpose_block<N>(from + r * from_stride + j, from_stride, [=](int k, Vec<N> row) { store<N>(there + k * to_stride, row); });
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

// C = A B or C += A B for small matrices: A's entries are broadcast, B's and C's rows are vectors.
//
// A tile of R rows and K registers of C stays in registers while k runs: R·K multiply-accumulates for K loads of B and
// R broadcasts of A, so with R = 8, K = 3 the two multipliers of a core are the limit and not the loads. The rows are
// shared out evenly: a last tile of one or two would leave the multipliers waiting for each other's sums.
#pragma once

#include "vec.hpp"

namespace dopant {

struct Matrix {  // rows may lie apart; entries of a row are contiguous
  const float* data;
  int stride;
};

#if defined(__AVX512F__)
constexpr int kTileRegisters = 28;  // of 32: the others hold the rows of B and an entry of A
#else
constexpr int kTileRegisters = 12;  // of 16
#endif
constexpr int kTileColumns = 3;  // registers of a row

// Loops over a tile are unrolled by force: only then does it stay in registers.
template <int R, int K, bool Whole>
inline void gemm_tile(Matrix a, Matrix b, float* c, int c_stride, bool onto, int k_count, int last_lanes) {
  Vec<W> tile[R][K];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) tile[r][k] = Vec<W>{};
  if (onto)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const float* row = c + static_cast<size_t>(r) * c_stride;
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k)
        tile[r][k] = Whole || k + 1 < K ? load<W>(row + k * W) : load_first(row + k * W, last_lanes);
    }
  for (int i = 0; i < k_count; ++i) {
    const float* row = b.data + static_cast<size_t>(i) * b.stride;
    Vec<W> from[K];
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k)
      from[k] = Whole || k + 1 < K ? load<W>(row + k * W) : load_first(row + k * W, last_lanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec<W> factor = all<W>(a.data[static_cast<size_t>(r) * a.stride + i]);
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k) tile[r][k] += factor * from[k];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    float* row = c + static_cast<size_t>(r) * c_stride;
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k)
      Whole || k + 1 < K ? store<W>(row + k * W, tile[r][k]) : store_first(row + k * W, tile[r][k], last_lanes);
  }
}

// A tile of `count` rows, R at most.
template <int R, int K>
inline void gemm_rows(int count, Matrix a, Matrix b, float* c, int c_stride, bool onto, int k_count, int last_lanes) {
  if constexpr (R > 1)
    if (count < R) return gemm_rows<R - 1, K>(count, a, b, c, c_stride, onto, k_count, last_lanes);
  if (last_lanes == W)
    gemm_tile<R, K, true>(a, b, c, c_stride, onto, k_count, W);
  else
    gemm_tile<R, K, false>(a, b, c, c_stride, onto, k_count, last_lanes);
}

template <int K>
inline void gemm_columns(Matrix a, Matrix b, float* c, int c_stride, bool onto, int m, int k_count, int last_lanes) {
  constexpr int most = kTileRegisters / K < 12 ? kTileRegisters / K : 12;
  for (int row = 0, tiles = (m + most - 1) / most; tiles > 0; --tiles) {
    const int count = (m - row + tiles - 1) / tiles;
    const Matrix rows{a.data + static_cast<size_t>(row) * a.stride, a.stride};
    gemm_rows<most, K>(count, rows, b, c + static_cast<size_t>(row) * c_stride, c_stride, onto, k_count, last_lanes);
    row += count;
  }
}

// C (m × n) = or, `onto` what is there, += A (m × k) B (k × n).
inline void gemm(Matrix a, Matrix b, float* c, int c_stride, bool onto, int m, int k_count, int n) {
  int column = 0;
  while (column < n) {
    const int left = n - column;
    const int registers = left >= kTileColumns * W ? kTileColumns : (left + W - 1) / W;
    const int lanes = left >= registers * W ? W : left - (registers - 1) * W;
    const Matrix part{b.data + column, b.stride};
    if (registers == 3)
      gemm_columns<3>(a, part, c + column, c_stride, onto, m, k_count, lanes);
    else if (registers == 2)
      gemm_columns<2>(a, part, c + column, c_stride, onto, m, k_count, lanes);
    else
      gemm_columns<1>(a, part, c + column, c_stride, onto, m, k_count, lanes);
    column += registers * W;
  }
}

}  // namespace dopant

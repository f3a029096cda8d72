// C += A B for small matrices: A's entries are broadcast, B's and C's rows are vectors.
//
// A tile of R rows and K registers of C stays in registers while k runs: R·K multiply-accumulates for K loads of B and
// R broadcasts of A, so with R = 8, K = 3 the two multipliers of a core are the limit and not the loads.
#pragma once

#include "vec.hpp"

namespace dopant {

struct Matrix {  // rows may lie apart; entries of a row are contiguous
  const float* data;
  int stride;
};

// Loops over a tile are unrolled by force: only then does it stay in registers.
template <int R, int K, bool Whole>
inline void gemm_tile(Matrix a, Matrix b, float* c, int c_stride, int k_count, int last_lanes) {
  Vec<W> tile[R][K];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) tile[r][k] = Vec<W>{};
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
    for (int k = 0; k < K; ++k) {
      if (Whole || k + 1 < K)
        store<W>(row + k * W, load<W>(row + k * W) + tile[r][k]);
      else
        store_first(row + k * W, load_first(row + k * W, last_lanes) + tile[r][k], last_lanes);
    }
  }
}

#if defined(__AVX512F__)
constexpr int kTileRows = 8, kTileRegisters = 3;  // 24 of 32 registers hold the tile
#else
constexpr int kTileRows = 4, kTileRegisters = 3;  // 12 of 16
#endif

template <int R, int K>
inline int gemm_rows(Matrix a, Matrix b, float* c, int c_stride, int row, int m, int k_count, int last_lanes) {
  for (; row + R <= m; row += R) {
    const Matrix rows{a.data + static_cast<size_t>(row) * a.stride, a.stride};
    float* to = c + static_cast<size_t>(row) * c_stride;
    if (last_lanes == W)
      gemm_tile<R, K, true>(rows, b, to, c_stride, k_count, W);
    else
      gemm_tile<R, K, false>(rows, b, to, c_stride, k_count, last_lanes);
  }
  return row;
}

template <int K>
inline void gemm_columns(Matrix a, Matrix b, float* c, int c_stride, int m, int k_count, int last_lanes) {
  int row = gemm_rows<kTileRows, K>(a, b, c, c_stride, 0, m, k_count, last_lanes);
  row = gemm_rows<kTileRows / 2, K>(a, b, c, c_stride, row, m, k_count, last_lanes);
  row = gemm_rows<2, K>(a, b, c, c_stride, row, m, k_count, last_lanes);
  gemm_rows<1, K>(a, b, c, c_stride, row, m, k_count, last_lanes);
}

// C (m × n) += A (m × k) B (k × n).
inline void gemm(Matrix a, Matrix b, float* c, int c_stride, int m, int k_count, int n) {
  int column = 0;
  while (column < n) {
    const int left = n - column;
    const int registers = left >= kTileRegisters * W ? kTileRegisters : (left + W - 1) / W;
    const int lanes = left >= registers * W ? W : left - (registers - 1) * W;
    const Matrix part{b.data + column, b.stride};
    if (registers == 3)
      gemm_columns<3>(a, part, c + column, c_stride, m, k_count, lanes);
    else if (registers == 2)
      gemm_columns<2>(a, part, c + column, c_stride, m, k_count, lanes);
    else
      gemm_columns<1>(a, part, c + column, c_stride, m, k_count, lanes);
    column += registers * W;
  }
}

}  // namespace dopant

// C = A B or C += A B for small matrices: A's entries are broadcast, B's and C's rows are vectors.
//
// A tile of R rows and K registers of C stays in registers while k runs: R·K multiply-accumulates for K loads of B and
// R broadcasts of A, so with R = 8, K = 3 the two multipliers of a core are the limit and not the loads. The rows are
// shared out evenly: a last tile of one or two would leave the multipliers waiting for each other's sums.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "vec.hpp"

namespace dopant {

struct Matrix {  // rows may lie apart; entries of a row are contiguous
  const float* data;
  int stride;
};

// Where B and C lie: registers of a row beside each other, ...
template <class Float>
struct Rows {
  Float* data;
  size_t stride;  // from row to row

  Float* at(int row, int column) const { return data + row * stride + column; }
  static Vec<W> load(const float* p, int lanes) { return lanes == W ? dopant::load<W>(p) : load_first(p, lanes); }
  static void store(float* p, Vec<W> v, int lanes) { lanes == W ? dopant::store<W>(p, v) : store_first(p, v, lanes); }
};

// ... or P columns of a row together, and the next P `apart` from these: so the middle axis of a tensor (pieces, rows, P)
// is multiplied where it lies. P is a register or a part of one.
template <int P, class Float>
struct Pieces {
  Float* data;
  size_t apart;

  Float* at(int row, int column) const { return data + row * P + static_cast<size_t>(column / P) * apart; }
  Vec<W> load(const float* p, int lanes) const { return gathered<W>(p, lanes); }
  void store(float* p, Vec<W> v, int lanes) const { scatter<W>(p, v, lanes); }

 private:
  template <int N>
  Vec<N> gathered(const float* p, int lanes) const {
    if constexpr (N == P) return lanes > 0 ? dopant::load<N>(p) : Vec<N>{};
    if constexpr (N > P)
      return join<N / 2>(gathered<N / 2>(p, lanes), gathered<N / 2>(p + N / 2 / P * apart, lanes - N / 2));
  }
  template <int N>
  void scatter(float* p, Vec<N> v, int lanes) const {
    if (lanes <= 0) return;
    if constexpr (N == P) return dopant::store<N>(p, v);
    if constexpr (N > P) {
      scatter<N / 2>(p, first_half<N / 2>(v), lanes);
      scatter<N / 2>(p + N / 2 / P * apart, second_half<N / 2>(v), lanes - N / 2);
    }
  }
};

#if defined(__AVX512F__)
constexpr int kTileRegisters = 28;  // of 32: the others hold the rows of B and an entry of A
#else
constexpr int kTileRegisters = 12;  // of 16
#endif
constexpr int kTileColumns = 3;  // registers of a row

// A sum is rounded at every product, by the more the more it has grown: a long one is made of a few shorter ones.
constexpr int kShortest = 24, kMostSums = 8;  // products of a part at least, parts at most

// Loops over a tile are unrolled by force: only then does it stay in registers.
template <int R, int K, bool Whole, class B, class C>
inline void gemm_tile(Matrix a, const B& b_there, const C& c_there, bool onto, int k_count, int last_lanes) {
  const B b = b_there;  // in registers
  C c = c_there;
  const auto lanes = [&](int k) { return Whole || k + 1 < K ? W : last_lanes; };
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k)
      if (!onto) __builtin_prefetch(c.at(r, k * W), 1);  // for the stores at the end
  Vec<W> total[R][K];  // of the sums so far, in memory
  const int sums = std::clamp(k_count / kShortest, 1, kMostSums);
  for (int sum = 0, i = 0; sum < sums; ++sum) {
    Vec<W> tile[R][K];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k) tile[r][k] = Vec<W>{};
    for (const int end = static_cast<int>(int64_t{k_count} * (sum + 1) / sums); i < end; ++i) {
      Vec<W> from[K];
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k) from[k] = b.load(b.at(i, k * W), lanes(k));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Vec<W> factor = all<W>(a.data[static_cast<size_t>(r) * a.stride + i]);
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) tile[r][k] += factor * from[k];
      }
    }
    if (sum > 0)
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) tile[r][k] += total[r][k];
    if (sum + 1 < sums) {
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) total[r][k] = tile[r][k];
      asm("" : "+m"(total));  // registers are the tile's
      continue;
    }
    asm("" : "+r"(c.data));  // or the places of all registers of the tile are kept until here
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k) {
        if (onto) tile[r][k] += c.load(c.at(r, k * W), lanes(k));
        c.store(c.at(r, k * W), tile[r][k], lanes(k));
      }
  }
}

// A tile of `count` rows, R at most.
template <int R, int K, class B, class C>
inline void gemm_rows(int count, Matrix a, const B& b, const C& c, bool onto, int k_count, int last_lanes) {
  if constexpr (R > 1)
    if (count < R) return gemm_rows<R - 1, K>(count, a, b, c, onto, k_count, last_lanes);
  if (last_lanes == W)
    gemm_tile<R, K, true>(a, b, c, onto, k_count, W);
  else
    gemm_tile<R, K, false>(a, b, c, onto, k_count, last_lanes);
}

template <int K, class B, class C>
inline void gemm_columns(Matrix a, const B& b, C c, bool onto, int m, int k_count, int last_lanes) {
  constexpr int most = kTileRegisters / K < 12 ? kTileRegisters / K : 12;
  for (int tiles = (m + most - 1) / most; tiles > 0; --tiles) {
    const int count = (m + tiles - 1) / tiles;
    gemm_rows<most, K>(count, a, b, c, onto, k_count, last_lanes);
    a.data += static_cast<size_t>(count) * a.stride;
    c.data = c.at(count, 0);
    m -= count;
  }
}

// C (m × n) = or, `onto` what is there, += A (m × k) B (k × n). With `Pieces<P, …>` n is a multiple of P.
template <class B, class C>
inline void gemm(Matrix a, B b, C c, bool onto, int m, int k_count, int n) {
  while (n > 0) {
    const int all = (n + W - 1) / W;  // of four, two and two: the sums of a single one wait for each other
    const int registers = all == kTileColumns + 1 ? all - all / 2 : std::min(all, kTileColumns);
    const int lanes = n >= registers * W ? W : n - (registers - 1) * W;
    if (registers == 3)
      gemm_columns<3>(a, b, c, onto, m, k_count, lanes);
    else if (registers == 2)
      gemm_columns<2>(a, b, c, onto, m, k_count, lanes);
    else
      gemm_columns<1>(a, b, c, onto, m, k_count, lanes);
    b.data = b.at(0, registers * W);
    c.data = c.at(0, registers * W);
    n -= registers * W;
  }
}
inline void gemm(Matrix a, Matrix b, float* c, int c_stride, bool onto, int m, int k_count, int n) {
  const Rows<const float> from{b.data, static_cast<size_t>(b.stride)};
  const Rows<float> to{c, static_cast<size_t>(c_stride)};
  gemm(a, from, to, onto, m, k_count, n);
}

}  // namespace dopant

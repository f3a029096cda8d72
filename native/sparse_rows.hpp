// A sparse matrix row by row (CSR), for many lanes: a non-zero is one multiply-accumulate of whole vectors.
//
// Two loads (x's lanes, the value) feed one or two multiply-accumulates; four non-zeros are under way at a time, so that
// none waits for the sum of the one before.
#pragma once

#include <vector>

#include "vec.hpp"

namespace dopant {

template <class T, class Index>
struct SparseRows {
  std::vector<int32_t> starts;  // of each row, and the end
  std::vector<Index> columns;
  std::vector<T> values;

  size_t bytes() const { return starts.size() * 4 + columns.size() * sizeof(Index) + values.size() * sizeof(T); }

  // y (rows, lanes) += scale[row] · (this x); scales may be null.
  void apply(const float* scales, const float* x, float* y, int lanes, Arena& arena) const {
    if (lanes == 4) return apply_lanes<4, 1>(scales, x, y, lanes, arena);
    if (W < 8) {
      for (int lane = 0; lane < lanes; lane += 4) apply_lanes<4, 1>(scales, x + lane, y + lane, lanes, arena);
      return;
    }
    if (lanes == 8) return apply_lanes<(W < 8 ? W : 8), 1>(scales, x, y, lanes, arena);
    int lane = 0;
    for (; lane + 2 * W <= lanes; lane += 2 * W) apply_lanes<W, 2>(scales, x + lane, y + lane, lanes, arena);
    for (; lane + W <= lanes; lane += W) apply_lanes<W, 1>(scales, x + lane, y + lane, lanes, arena);
  }

 private:
  template <int N, int K>
  void apply_lanes(const float* scales, const float* x, float* y, int stride, Arena& arena) const {
    Arena::Scope scope(arena);
    const int rows = static_cast<int>(starts.size()) - 1;
    float* wide = nullptr;
    if (sizeof(T) == 1) {
      int longest = 0;
      for (int r = 0; r < rows; ++r) longest = starts[r + 1] - starts[r] > longest ? starts[r + 1] - starts[r] : longest;
      wide = arena.take<float>(static_cast<size_t>(longest));
    }
    for (int r = 0; r < rows; ++r) {
      const int begin = starts[r], count = starts[r + 1] - begin;
      if (count == 0) continue;
      const Index* column = columns.data() + begin;
      const float* value = as_floats(values.data() + begin, count, wide);
      Vec<N> sums[4][K] = {};
      int i = 0;
      for (; i + 4 <= count; i += 4)
#pragma GCC unroll 4
        for (int u = 0; u < 4; ++u) {
          const float* from = x + static_cast<size_t>(column[i + u]) * stride;
          const Vec<N> factor = all<N>(value[i + u]);
          for (int k = 0; k < K; ++k) sums[u][k] += factor * load<N>(from + k * N);
        }
      for (; i < count; ++i) {
        const float* from = x + static_cast<size_t>(column[i]) * stride;
        const Vec<N> factor = all<N>(value[i]);
        for (int k = 0; k < K; ++k) sums[0][k] += factor * load<N>(from + k * N);
      }
      const Vec<N> scale = all<N>(scales == nullptr ? 1.0f : scales[r]);
      float* to = y + static_cast<size_t>(r) * stride;
      for (int k = 0; k < K; ++k)
        store<N>(to + k * N, load<N>(to + k * N) + scale * ((sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k])));
    }
  }
};

}  // namespace dopant

// A sparse matrix row by row (CSR), for many lanes: a non-zero is one multiply-accumulate of whole vectors.
//
// Two loads (x's lanes, the value) feed one or two multiply-accumulates; four non-zeros are under way at a time, so that
// none waits for the sum of the one before, and rows are filled up to fours with zeros. Rows come in the order of their
// length, so that the processor foresees where each ends.
#pragma once

#include <algorithm>
#include <vector>

#include "arena.hpp"
#include "vec.hpp"

namespace dopant {

template <class T, class Index>
struct Entry {
  int32_t row;
  Index column;
  T value;
};

template <class T, class Index>
struct SparseRows {
  struct Run {  // rows of one length, a multiple of four
    int32_t length, count;
  };
  int width = 0;  // columns of the matrix
  std::vector<Run> runs;
  std::vector<int32_t> rows;
  std::vector<int32_t> sums;  // of each row's 8-bit values, for kernels whose bytes of x have an offset
  AlignedVector<Index> columns;
  AlignedVector<T> values;

  size_t bytes() const {
    return runs.size() * sizeof(Run) + (rows.size() + sums.size()) * 4 + columns.size() * sizeof(Index) +
           values.size() * sizeof(T);
  }

  // Entries in the order of rows.
  static SparseRows from(const std::vector<Entry<T, Index>>& entries, int width) {
    SparseRows result;
    result.width = width;
    std::vector<std::pair<size_t, size_t>> spans;  // begin and end of each row
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i == 0 || entries[i].row != entries[i - 1].row) spans.push_back({i, i});
      ++spans.back().second;
    }
    auto length = [](const auto& span) { return static_cast<int32_t>((span.second - span.first + 3) / 4 * 4); };
    std::stable_sort(spans.begin(), spans.end(), [&](const auto& a, const auto& b) { return length(a) > length(b); });
    for (const auto& span : spans) {
      if (result.runs.empty() || result.runs.back().length != length(span)) result.runs.push_back({length(span), 0});
      ++result.runs.back().count;
      result.rows.push_back(entries[span.first].row);
      int32_t sum = 0;
      for (size_t i = span.first; i < span.first + static_cast<size_t>(length(span)); ++i) {
        const bool inside = i < span.second;
        result.columns.push_back(entries[inside ? i : span.first].column);
        result.values.push_back(inside ? entries[i].value : T{0});
        sum += static_cast<int32_t>(result.values.back());
      }
      if (sizeof(T) == 1) result.sums.push_back(sum);
    }
    result.columns.shrink_to_fit();
    result.values.resize(result.values.size() + 64);  // whole registers are read
    result.values.shrink_to_fit();
    return result;
  }

  // y (rows, lanes) += scale[row] · (this x); scales may be null.
  void apply(const float* scales, const float* x, float* y, int lanes, Arena& arena) const {
    int lane = 0;
    if (lanes == 2 * W) return apply_lanes<W, 2, 2 * W>(scales, x, y, lanes, arena);
    if (lanes == 8) return apply_lanes<8 < W ? 8 : W, 8 < W ? 1 : 8 / W, 8>(scales, x, y, lanes, arena);
    for (; lane + 2 * W <= lanes; lane += 2 * W) apply_lanes<W, 2, 0>(scales, x + lane, y + lane, lanes, arena);
    for (; lane + W <= lanes; lane += W) apply_lanes<W, 1, 0>(scales, x + lane, y + lane, lanes, arena);
    if (lane < lanes) apply_lanes<4, 1, 0>(scales, x + lane, y + lane, lanes, arena);
  }

 private:
  static constexpr int kAhead = 1024;  // 8-bit values are widened so many at a time: a load right behind its store waits

  // Stride: that of x and y where it is known beforehand, else 0.
  template <int N, int K, int Stride>
  void apply_lanes(const float* scales, const float* x, float* y, int lanes, Arena& arena) const {
    Arena::Scope scope(arena);
    const size_t stride = Stride > 0 ? Stride : static_cast<size_t>(lanes);
    const Index* column = columns.data();
    const T* packed = values.data();
    const int longest = runs.empty() ? 0 : runs.front().length;
    float* wide = sizeof(T) == 1 ? arena.take<float>(static_cast<size_t>(std::max(longest, kAhead)) + W) : nullptr;
    const int32_t* row = rows.data();
    for (const Run& run : runs)
      for (int first = 0; first < run.count;) {
        const int count = sizeof(T) == 1 ? std::min(std::max(1, kAhead / run.length), run.count - first) : run.count;
        const int entries = count * run.length;
        const float* value = reinterpret_cast<const float*>(packed);
        if (sizeof(T) == 1) {
          for (int i = 0; i < entries; i += W) store<W>(wide + i, widen<W>(packed + i));
          value = wide;
        }
        for (int n = 0; n < count; ++n)
          add_row<N, K>(column + n * run.length, value + n * run.length, run.length,
                        scales == nullptr ? 1.0f : scales[row[n]], x, y + row[n] * stride, stride);
        first += count;
        row += count;
        column += entries;
        packed += entries;
      }
  }

  // y += scale · Σ value · x[column]
  template <int N, int K>
  static inline void add_row(const Index* column, const float* value, int length, float scale, const float* x, float* y,
                             size_t stride) {
    Vec<N> sums[4][K] = {};
    for (int i = 0; i < length; i += 4)
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) {
        const float* from = x + column[i + u] * stride;
        const Vec<N> factor = all<N>(value[i + u]);
#pragma GCC unroll 2
        for (int k = 0; k < K; ++k) sums[u][k] += factor * load<N>(from + k * N);
      }
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) {
      const Vec<N> total = (sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k]);
      store<N>(y + k * N, load<N>(y + k * N) + all<N>(scale) * total);
    }
  }
};

}  // namespace dopant

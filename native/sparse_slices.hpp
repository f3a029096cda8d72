// A sparse matrix in slices of a register of rows of like length (SELL), for one lane on any machine.
//
// A row alone is one long chain of sums; rows side by side keep the multipliers busy. Rows are sorted by length,
// so a slice is padded little: its k-th entries lie together.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "sparse_rows.hpp"

namespace dopant {

template <class T, class Index>
struct SparseSlices {
  static constexpr int kSlice = W < 8 ? W : 8;
  std::vector<int32_t> rows;    // of each lane of each slice, sorted by length
  std::vector<int32_t> starts;  // of each slice, in steps of a slice's entries, and the end
  std::vector<Index> columns;
  std::vector<T> values;

  size_t bytes() const { return (rows.size() + starts.size()) * 4 + columns.size() * sizeof(Index) + values.size() * sizeof(T); }

  static SparseSlices from(const SparseRows<T, Index>& csr) {
    SparseSlices result;
    const int count = static_cast<int>(csr.starts.size()) - 1;
    auto length = [&](int row) { return csr.starts[row + 1] - csr.starts[row]; };
    for (int r = 0; r < count; ++r)
      if (length(r) > 0) result.rows.push_back(r);
    std::stable_sort(result.rows.begin(), result.rows.end(), [&](int a, int b) { return length(a) > length(b); });
    result.starts.push_back(0);
    for (size_t first = 0; first < result.rows.size(); first += kSlice) {
      const int steps = length(result.rows[first]);
      for (int step = 0; step < steps; ++step)
        for (size_t lane = first; lane < first + kSlice; ++lane) {
          const bool inside = lane < result.rows.size() && step < length(result.rows[lane]);
          const int at = inside ? csr.starts[result.rows[lane]] + step : 0;
          result.columns.push_back(inside ? csr.columns[at] : 0);
          result.values.push_back(inside ? csr.values[at] : T{0});
        }
      result.starts.push_back(result.starts.back() + steps);
    }
    return result;
  }

  void apply(const float* scales, const float* x, float* y) const {
    for (size_t slice = 0; slice + 1 < starts.size(); ++slice) {
      const Index* column = columns.data() + static_cast<size_t>(starts[slice]) * kSlice;
      const T* value = values.data() + static_cast<size_t>(starts[slice]) * kSlice;
      Vec<kSlice> total{};
      for (int step = starts[slice]; step < starts[slice + 1]; ++step, column += kSlice, value += kSlice) {
        Vec<kSlice> from;
        for (int lane = 0; lane < kSlice; ++lane) from[lane] = x[column[lane]];
        total += widen(value) * from;
      }
      for (size_t lane = 0; lane < size_t{kSlice} && slice * kSlice + lane < rows.size(); ++lane) {
        const int row = rows[slice * kSlice + lane];
        y[row] += (scales == nullptr ? 1.0f : scales[row]) * total[lane];
      }
    }
  }

 private:
  static Vec<kSlice> widen(const float* p) { return load<kSlice>(p); }
  static Vec<kSlice> widen(const int8_t* p) {
    typedef int8_t Bytes __attribute__((vector_size(kSlice), aligned(1), may_alias));
    return __builtin_convertvector(*reinterpret_cast<const Bytes*>(p), Vec<kSlice>);
  }
};

}  // namespace dopant

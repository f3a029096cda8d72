// A sparse matrix in slices, a register of rows of like length each (SELL), for one lane on any machine.
//
// A row alone is one long chain of sums; rows side by side keep the multipliers busy. Rows are sorted by length, so
// that a slice is padded little; the k-th entries of its rows lie together.
#pragma once

#include <algorithm>
#include <vector>

#include "gathered.hpp"
#include "sparse_rows.hpp"

namespace dopant {

template <class T, class Index>
struct SparseSlices {
  static constexpr int kSlice = W;
  std::vector<int32_t> rows;    // of each lane of each slice, sorted by length; -1 beyond the last
  std::vector<int32_t> starts;  // of each slice, in entries a lane, and the end
  std::vector<Index> columns;
  std::vector<T> values;

  int most_singly() const { return 1; }  // of more lanes, rows take less time
  size_t bytes() const {
    return (rows.size() + starts.size()) * 4 + columns.size() * sizeof(Index) + values.size() * sizeof(T);
  }

  // Entries in the order of rows.
  static SparseSlices from(const std::vector<Entry<T, Index>>& entries) {
    SparseSlices result;
    std::vector<std::pair<size_t, size_t>> rows;  // begin, end
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i == 0 || entries[i].row != entries[i - 1].row) rows.push_back({i, i});
      ++rows.back().second;
    }
    auto length = [&](size_t n) { return n < rows.size() ? rows[n].second - rows[n].first : 0; };
    std::stable_sort(rows.begin(), rows.end(),
                     [](const auto& a, const auto& b) { return a.second - a.first > b.second - b.first; });
    result.starts.push_back(0);
    for (size_t first = 0; first < rows.size(); first += kSlice) {
      const size_t steps = length(first);
      for (size_t n = first; n < first + kSlice; ++n) {
        result.rows.push_back(n < rows.size() ? entries[rows[n].first].row : -1);
      }
      for (size_t step = 0; step < steps; ++step)
        for (size_t n = first; n < first + kSlice; ++n) {
          const bool inside = step < length(n);
          // Filled up with a column that the row has: zero times infinity is NaN.
          result.columns.push_back(n < rows.size() ? entries[std::min(rows[n].first + step, rows[n].second - 1)].column : 0);
          result.values.push_back(inside ? entries[rows[n].first + step].value : T{0});
        }
      result.starts.push_back(result.starts.back() + static_cast<int32_t>(steps));
    }
    return result;
  }

  // f(row, column, value) for every entry that is not zero.
  template <class F>
  void each(F f) const {
    for (size_t slice = 0; slice + 1 < starts.size(); ++slice)
      for (int step = starts[slice]; step < starts[slice + 1]; ++step)
        for (int lane = 0; lane < kSlice; ++lane) {
          const size_t at = static_cast<size_t>(step) * kSlice + lane;
          if (values[at] != T{0}) f(rows[slice * kSlice + lane], columns[at], values[at]);
        }
  }

  // y += scale[row] · (this x); scales may be null. True: it always can.
  bool apply(const float* scales, const float* x, float* y) const {
    const Index* column = columns.data();
    const T* value = values.data();
    for (size_t slice = 0; slice + 1 < starts.size(); ++slice) {
      Vec<kSlice> total{}, other{};  // two, so that none waits for the one before
      int n = starts[slice + 1] - starts[slice];
      for (; n > 1; n -= 2, column += 2 * kSlice, value += 2 * kSlice) {
        total += widen<kSlice>(value) * gathered<kSlice>(x, column);
        other += widen<kSlice>(value + kSlice) * gathered<kSlice>(x, column + kSlice);
      }
      if (n > 0) {
        total += widen<kSlice>(value) * gathered<kSlice>(x, column);
        column += kSlice, value += kSlice;
      }
      add(y, scales, rows.data() + slice * kSlice, total + other);
    }
    return true;
  }

  // The same of y (rows, lanes) and x (columns, lanes): slow, for a few entries that are left.
  void apply_lanes(const float* scales, const float* x, float* y, int lanes) const {
    const size_t stride = static_cast<size_t>(lanes);
    each([&](int row, Index column, T value) {
      const Vec<4> factor = all<4>((scales == nullptr ? 1.0f : scales[row]) * value);
      const float* from = x + column * stride;
      float* to = y + row * stride;
      for (int lane = 0; lane < lanes; lane += 4) store<4>(to + lane, load<4>(to + lane) + factor * load<4>(from + lane));
    });
  }

 private:
  static void add(float* y, const float* scales, const int32_t* row, Vec<kSlice> total) {
#if defined(__AVX512F__)
    const __m512i at = _mm512_loadu_si512(row);
    const __mmask16 inside = _mm512_cmpge_epi32_mask(at, _mm512_setzero_si512());
    if (scales != nullptr) total *= (Vec<kSlice>)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), inside, at, scales, 4);
    total += (Vec<kSlice>)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), inside, at, y, 4);
    _mm512_mask_i32scatter_ps(y, inside, at, (__m512)total, 4);
#else
    for (int lane = 0; lane < kSlice; ++lane)
      if (row[lane] >= 0) y[row[lane]] += (scales == nullptr ? 1.0f : scales[row[lane]]) * total[lane];
#endif
  }
};

}  // namespace dopant

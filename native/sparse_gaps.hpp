// A sparse matrix with gaps of a byte between columns, for any number of lanes: little more than its values, and a byte each.
//
// Sixteen rows of like length lie side by side (SELL), as one row alone would be one long chain of sums; the k-th entries of
// a slice's rows lie together, and a slice is padded little, as rows are sorted by length. Where a gap is too long for a byte
// the row is cut in two.
//
// First the places of a slice are added up, for all of its rows in an addition or two, and written down. Then, of one lane,
// each number of x is a load and 8 or so are a multiply-accumulate; of many lanes each non-zero is a multiply-accumulate of
// whole registers (sparse_lanes.hpp). What to write down takes is shared by all lanes.
#pragma once

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "arena.hpp"
#include "gathered.hpp"
#include "sparse_entry.hpp"
#include "sparse_lanes.hpp"
#include "vec.hpp"

namespace dopant {

template <class T>
struct SparseGaps {
  static constexpr int kSlice = SixteenRows::kRows;
  static constexpr int kTogether = SixteenRows::kTogether;
  static constexpr int kLongest = 255;  // gap

  struct Slice {
    int32_t steps;
    int32_t rows[kSlice];      // -1 beyond the last
    uint16_t columns[kSlice];  // of the first entries
  };
  std::vector<Slice> slices;
  AlignedVector<uint8_t> gaps;   // slice after slice, step after step: of each row, from the entry before
  AlignedVector<T> values;       // likewise; zeros fill up

  int most_singly() const { return 1; }
  size_t bytes() const { return slices.size() * sizeof(Slice) + gaps.size() + values.size() * sizeof(T); }

  // Entries in the order of rows, and of columns within a row.
  static SparseGaps from(const std::vector<Entry<T>>& entries) {
    SparseGaps result;
    std::vector<std::pair<size_t, size_t>> pieces;  // of rows: begin, end
    for (size_t i = 0; i < entries.size(); ++i) {
      const bool goes_on =
          i > 0 && entries[i].row == entries[i - 1].row && entries[i].column - entries[i - 1].column <= kLongest;
      if (!goes_on) pieces.push_back({i, i});
      ++pieces.back().second;
    }
    std::stable_sort(pieces.begin(), pieces.end(),
                     [](const auto& a, const auto& b) { return a.second - a.first > b.second - b.first; });
    for (size_t first = 0; first < pieces.size(); first += kSlice) result.add_slice(entries, pieces, first);
    result.slices.shrink_to_fit();
    result.gaps.shrink_to_fit();
    result.values.shrink_to_fit();
    return result;
  }

  // f(row, column, value) for every entry that is not zero.
  template <class F>
  void each(F f) const {
    each_part([&](const Slice& slice, const uint16_t* places, const T* value, int steps) {
      for (int k = 0; k < steps * kSlice; ++k)
        if (value[k] != T{0}) f(slice.rows[k % kSlice], places[k], value[k]);
    });
  }

  // y += scale[row] · (this x); scales may be null.
  void apply(const float* scales, const float* x, float* y) const {
    each_part([&](const Slice& slice, const uint16_t* places, const T* value, int steps) {
      Vec<W> sums[kSlice / W] = {};
      const T* number = value;
      for (const uint16_t* place = places; place < places + steps * kSlice; place += kSlice, number += kSlice)
#pragma GCC unroll 4
        for (int k = 0; k < kSlice / W; ++k) sums[k] += widen<W>(number + k * W) * gathered<W>(x, place + k * W);
      for (int k = 0; k < kSlice / W; ++k)
        if (any_nan<W>(sums[k])) sums[k] = without_zeros(x, places + k * W, value + k * W, steps);
      for (int n = 0; n < kSlice; ++n)
        if (const int row = slice.rows[n]; row >= 0) y[row] += (scales == nullptr ? 1.0f : scales[row]) * sums[n / W][n % W];
    });
  }

  // The same of y (rows, lanes) and x (columns, lanes), of less than 2^31 numbers.
  void apply_lanes(const float* scales, const float* x, float* y, int lanes) const {
    alignas(64) int32_t offsets[kTogether * kSlice];
    alignas(64) float numbers[kTogether * kSlice];
    const uint8_t* gap = gaps.data();
    const T* value = values.data();
    for (const Slice& slice : slices) {
      IntVec<W> at[kSlice / W];
      for (int n = 0; n < kSlice; ++n) at[n / W][n % W] = slice.columns[n];
      for (int left = slice.steps; left > 0; left -= kTogether) {
        const int steps = std::min(left, kTogether);
        for (int k = 0; k < steps * kSlice; k += kSlice, gap += kSlice, value += kSlice)
#pragma GCC unroll 4
          for (int n = 0; n < kSlice; n += W) {
            at[n / W] += widen_bytes(gap + n);
            const IntVec<W> offset = at[n / W] * lanes;
            std::memcpy(offsets + k + n, &offset, sizeof offset);
            store<W>(numbers + k + n, widen<W>(value + n));
          }
        SixteenRows{slice.rows, steps, offsets, numbers, scales, lanes}.apply(x, y, lanes);
      }
    }
  }

 private:
  void add_slice(const std::vector<Entry<T>>& entries, const std::vector<std::pair<size_t, size_t>>& pieces,
                 size_t first) {
    Slice slice{static_cast<int32_t>(pieces[first].second - pieces[first].first), {}, {}};
    for (size_t n = 0; n < kSlice; ++n) {
      const bool there = first + n < pieces.size();
      slice.rows[n] = there ? entries[pieces[first + n].first].row : -1;
      slice.columns[n] = there ? entries[pieces[first + n].first].column : uint16_t{0};
    }
    for (int32_t step = 0; step < slice.steps; ++step)
      for (size_t n = first; n < first + kSlice; ++n) {
        const auto [begin, end] = n < pieces.size() ? pieces[n] : std::pair<size_t, size_t>{0, 0};
        const size_t i = begin + static_cast<size_t>(step);
        const bool inside = i < end;
        gaps.push_back(inside && step > 0 ? static_cast<uint8_t>(entries[i].column - entries[i - 1].column) : 0);
        values.push_back(inside ? entries[i].value : T{0});
      }
    slices.push_back(slice);
  }

  // A sum that is NaN may be so by a zero that fills up, times infinity. Cold, or the loops around would keep their registers in
  // memory for its sake.
  __attribute__((noinline, cold)) static Vec<W> without_zeros(const float* x, const uint16_t* places, const T* value, int steps) {
    Vec<W> sums{};
    for (int step = 0; step < steps * kSlice; step += kSlice)
      for (int n = 0; n < W; ++n)
        if (value[step + n] != T{0}) sums[n] += value[step + n] * x[places[step + n]];
    return sums;
  }

  // f(slice, places in x, values, steps) for some steps of each slice.
  template <class F>
  void each_part(F f) const {
    alignas(64) uint16_t places[kTogether * kSlice];
    const uint8_t* gap = gaps.data();
    const T* value = values.data();
    for (const Slice& slice : slices) {
      Places at(slice.columns);
      for (int left = slice.steps; left > 0; left -= kTogether) {
        const int steps = std::min(left, kTogether);
        for (uint16_t* to = places; to < places + steps * kSlice; to += kSlice, gap += kSlice) {
          at.add(gap);
          at.write(to);
        }
        f(slice, places, value, steps);
        value += steps * kSlice;
      }
    }
  }

  // Places in x, of a slice's rows.
  struct Places {
#if defined(__AVX2__)
    __m256i at;
    explicit Places(const uint16_t* first) : at(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(first))) {}
    void add(const uint8_t* gap) {
      at = _mm256_add_epi16(at, _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(gap))));
    }
    void write(uint16_t* to) const { _mm256_store_si256(reinterpret_cast<__m256i*>(to), at); }
#elif defined(__SSE2__)
    __m128i low, high;
    explicit Places(const uint16_t* first)
        : low(_mm_loadu_si128(reinterpret_cast<const __m128i*>(first))),
          high(_mm_loadu_si128(reinterpret_cast<const __m128i*>(first + 8))) {}
    void add(const uint8_t* gap) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(gap)), zero = _mm_setzero_si128();
      low = _mm_add_epi16(low, _mm_unpacklo_epi8(bytes, zero));
      high = _mm_add_epi16(high, _mm_unpackhi_epi8(bytes, zero));
    }
    void write(uint16_t* to) const {
      _mm_store_si128(reinterpret_cast<__m128i*>(to), low);
      _mm_store_si128(reinterpret_cast<__m128i*>(to + 8), high);
    }
#else
    uint16_t at[kSlice];
    explicit Places(const uint16_t* first) { std::memcpy(at, first, sizeof at); }
    void add(const uint8_t* gap) {
      for (int n = 0; n < kSlice; ++n) at[n] = static_cast<uint16_t>(at[n] + gap[n]);
    }
    void write(uint16_t* to) const { std::memcpy(to, at, sizeof at); }
#endif
  };
};

}  // namespace dopant

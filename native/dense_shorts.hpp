// A dense matrix in 8 bits, times activations in 16 bits or a little less (the fast mode with AVX2).
//
// An instruction multiplies sixteen pairs of 16-bit numbers and adds them up two by two, where one of floats multiplies eight.
// Activations have as many bits as the sums of a row have room for: 15.6 of 650 columns, so what errs is the weights.
#pragma once

#include <algorithm>
#include <cmath>

#include "dense.hpp"
#include "layout.hpp"

namespace dopant {

#if defined(__AVX2__) && !defined(__AVX512F__)

class DenseShorts final : public Weight {
 public:
  static constexpr int kMostColumns = 1 << 16;  // activations of more would have less than 9 bits

  DenseShorts(int rows, int columns, const int8_t* values, const float* scales)
      : Weight(rows, columns), floats_(rows, columns, values, scales) {}

  bool gains_by_lanes() const override { return true; }
  bool shares_rows() const override { return true; }
  void row(int i, float* out) const override { floats_.row(i, out); }
  size_t bytes() const override { return floats_.bytes(); }

  void linear(const float* bias, const float* x, int batch, float* y) const override {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    const Shorts shorts = shorts_of(x, batch, arena);
    if (shorts.scales == nullptr) return floats_.linear(bias, x, batch, y);
    each_rows([&](int row, int end) { multiply(row, end, shorts, bias, y + row, static_cast<size_t>(rows)); });
  }

  // Lanes are turned into items of a batch, and the product of some rows, while it is near, into lanes.
  void apply(const float* x, float* y, int lanes) const override {
    if (lanes == 1) return linear(y, x, 1, y);
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    float* turned = arena.take<float>(static_cast<size_t>(columns) * lanes);
    from_lanes(x, lanes, columns, lanes, turned, static_cast<size_t>(columns));
    const Shorts shorts = shorts_of(turned, lanes, arena);
    if (shorts.scales == nullptr) return floats_.apply(x, y, lanes);
    each_rows([&](int row, int end) {
      Arena& own = Arena::of_this_thread();
      Arena::Scope part(own);
      const int count = end - row;
      float* product = own.take<float>(static_cast<size_t>(count) * lanes);
      float* sums = own.take<float>(static_cast<size_t>(count) * lanes);
      multiply(row, end, shorts, nullptr, product, static_cast<size_t>(count));
      to_lanes(product, lanes, count, sums, lanes);
      float* to = y + static_cast<size_t>(row) * lanes;
      for (int i = 0; i < count * lanes; ++i) to[i] += sums[i];
    });
  }

 private:
  static constexpr int kWide = 16;            // numbers a register
  static constexpr int kRows = 2, kItems = 4;  // of a block: its sums stay in registers
  static constexpr int kNear = 8 * kRows;      // rows that stay in the first-level cache while all items pass over them

  // Items as whole numbers, `stride` apart, filled up with zeros, and their scales; null if a value is not finite.
  struct Shorts {
    const int16_t* values;
    const float* scales;
    int count;
    size_t stride;
  };
  Shorts shorts_of(const float* x, int count, Arena& arena) const {
    const int64_t limit = std::min<int64_t>(INT16_MAX, INT32_MAX / (int64_t{128} * columns));
    const size_t stride = (static_cast<size_t>(columns) + kWide - 1) / kWide * kWide;
    int16_t* values = arena.take<int16_t>(stride * count);
    float* scales = arena.take<float>(static_cast<size_t>(count));
    for (int item = 0; item < count; ++item, x += columns) {
      const float most = largest_size(x, columns);
      if (!std::isfinite(most)) return {values, nullptr, count, stride};
      scales[item] = most > 1e-30f ? most / static_cast<float>(limit) : 1.0f;
      const float factor = 1.0f / scales[item];
      for (int j = 0; j < static_cast<int>(stride); j += kWide) {
        const auto eight = [&](int at) {
          const int left = columns - at;
          const Vec<8> numbers = left >= 8 ? load<8>(x + at) : left > 0 ? load_first(x + at, left) : Vec<8>{};
          return _mm256_cvtps_epi32((__m256)(numbers * factor));
        };
        const __m256i shorts = _mm256_permute4x64_epi64(_mm256_packs_epi32(eight(j), eight(j + 8)), 0xd8);
        _mm256_store_si256(reinterpret_cast<__m256i*>(values + item * stride + j), shorts);
      }
    }
    return {values, scales, count, stride};
  }

  // do(row, end) for all rows, some that are near each other at a time; among threads.
  template <class Do>
  void each_rows(Do todo) const {
    share_rows(rows, kNear, static_cast<size_t>(rows) * columns, [&](int row, int end) {
      for (; row < end; row += kNear) todo(row, std::min(end, row + kNear));
    });
  }

  // to (items, rows from `row` to `end`) = the product + onto (all rows), which may be null.
  void multiply(int row, int end, const Shorts& x, const float* onto, float* to, size_t stride) const {
    for (int item = 0; item < x.count; item += kItems)
      for (int first = row; first < end; first += kRows)
        block<kRows, kItems>(first, end - first, x, item, x.count - item, onto, to + item * stride + first - row, stride);
  }

  // Of `height` rows, R at most, and `items`, L at most.
  template <int R, int L>
  void block(int row, int height, const Shorts& x, int item, int items, const float* onto, float* to, size_t stride) const {
    if constexpr (L > 1)
      if (items < L) return block<R, L - 1>(row, height, x, item, items, onto, to, stride);
    if constexpr (R > 1)
      if (height < R) return block<R - 1, L>(row, height, x, item, items, onto, to, stride);
    const int8_t* from = floats_.values_of(row);
    const int16_t* numbers = x.values + item * x.stride;
    const size_t x_stride = x.stride;
    __m256i sums[R][kItems];
#pragma GCC unroll 8
    for (int n = 0; n < R * kItems; ++n) sums[n / kItems][n % kItems] = _mm256_setzero_si256();
    for (size_t j = 0; j < x_stride; j += kWide, from += kWide, numbers += kWide) {
      __m256i weights[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        weights[r] = _mm256_cvtepi8_epi16(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + r * static_cast<size_t>(columns))));
#pragma GCC unroll 4
      for (int l = 0; l < L; ++l) {
        __m256i factors = _mm256_load_si256(reinterpret_cast<const __m256i*>(numbers + l * x_stride));
        if (R > 1) asm("" : "+x"(factors));  // else it is loaded again for each row
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sums[r][l] = _mm256_add_epi32(sums[r][l], _mm256_madd_epi16(weights[r], factors));
      }
    }
    const Vec<4> x_scales = load<4>(x.scales + item);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const Vec<4> start = all<4>(onto == nullptr ? 0.0f : onto[row + r]);
      const Vec<4> y = start + all<4>(floats_.scale_of(row + r)) * x_scales * totals_of(sums[r]);
#pragma GCC unroll 4
      for (int l = 0; l < L; ++l) to[l * stride + r] = y[l];
    }
  }

  // What the eight parts of each of four sums add up to.
  static Vec<4> totals_of(const __m256i (&sums)[4]) {
    const __m256i fours = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    const __m128i totals = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
    return (Vec<4>)_mm_cvtepi32_ps(totals);
  }

  const Dense<int8_t> floats_;  // for activations that are not finite; its values are ours
};

#endif

}  // namespace dopant

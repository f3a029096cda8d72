// Sixteen rows of a sparse matrix times many lanes of x: a non-zero is a multiply-accumulate of whole registers, while the
// sums of some rows stay in others.
//
// Loads decide how fast: the place, the number and x. So a form writes down, for some of its steps, places as offsets into x
// and numbers as floats, once for all lanes, and two places come in one load. Numbers that are zero are there to fill up: a sum
// that is NaN may be so by zero times infinity, and is added up again without them.
#pragma once

#include <cstring>

#include "vec.hpp"

namespace dopant {

struct SixteenRows {
  static constexpr int kRows = 16;
  static constexpr int kTogether = 64;  // steps that are written down at a time, at most

  const int32_t* rows;  // -1 beyond the last
  int steps;
  const int32_t* offsets;  // (steps, 16), of a column's first lane; in the first-level cache
  const float* numbers;    // likewise
  const float* scales;     // of all of the matrix's rows; may be null
  int stride;              // between columns of x, and rows of y

  // y += scale[row] · numbers · x, of `lanes` lanes.
  void apply(const float* x, float* y, int lanes) const {
    int lane = 0;
    for (; lane + 2 * W <= lanes; lane += 2 * W) apply_to<2 * W>(x + lane, y + lane);
    for (; lane + W <= lanes; lane += W) apply_to<W>(x + lane, y + lane);
#if defined(__AVX512DQ__)
    for (; lane + 8 <= lanes; lane += 8) add_pairs(x + lane, y + lane);
#endif
    for (; lane < lanes; lane += 4) apply_to<4>(x + lane, y + lane);
  }

 private:
  // P lanes, so many rows at a time that eight sums are under way.
  template <int P>
  void apply_to(const float* x, float* y) const {
    constexpr int N = P < W ? P : W, K = P / N, R = 8 / K;
    for (int first = 0; first < kRows; first += R) add_rows<N, K, R>(first, x, y);
  }

  // A function of its own, or the compiler runs out of registers.
  template <int N, int K, int R>
  __attribute__((noinline)) void add_rows(int first, const float* x, float* y) const {
    Vec<N> sums[R][K];
#pragma GCC unroll 8
    for (int n = 0; n < R * K; ++n) sums[n / K][n % K] = Vec<N>{};
    const int32_t* place = offsets + first;
    const float* number = numbers + first;
    for (const int32_t* end = place + steps * kRows; place < end; place += kRows, number += kRows)
#pragma GCC unroll 4
      for (int n = 0; n < R; n += 2) {
        uint64_t two;  // in one load
        std::memcpy(&two, place + n, 8);
        add<N, K>(x + static_cast<uint32_t>(two), number[n], sums[n]);
        add<N, K>(x + (two >> 32), number[n + 1], sums[n + 1]);
      }
#pragma GCC unroll 8
    for (int n = 0; n < R * K; ++n) add_to<N>(x + n % K * N, y + n % K * N, first + n / K, sums[n / K][n % K]);
  }

#if defined(__AVX512DQ__)
  // Eight lanes, half of a register: two rows in one, all sixteen at a time.
  __attribute__((noinline)) void add_pairs(const float* x, float* y) const {
    constexpr int kPairs = kRows / 2;
    Vec<16> sums[kPairs];
    __m512i spread[kPairs];  // the numbers of two rows
#pragma GCC unroll 8
    for (int n = 0; n < kPairs; ++n) {
      sums[n] = Vec<16>{};
      spread[n] = _mm512_inserti32x8(_mm512_set1_epi32(2 * n), _mm256_set1_epi32(2 * n + 1), 1);
    }
    const float* number = numbers;
    for (const int32_t *place = offsets, *end = place + steps * kRows; place < end; place += kRows, number += kRows) {
      const __m512 sixteen = _mm512_load_ps(number);
#pragma GCC unroll 8
      for (int n = 0; n < kPairs; ++n) {
        uint64_t two;  // in one load
        std::memcpy(&two, place + 2 * n, 8);
        const __m512 first = _mm512_castps256_ps512(_mm256_loadu_ps(x + static_cast<uint32_t>(two)));
        sums[n] += (Vec<16>)_mm512_insertf32x8(first, _mm256_loadu_ps(x + (two >> 32)), 1) *
                   (Vec<16>)_mm512_permutexvar_ps(spread[n], sixteen);
      }
    }
#pragma GCC unroll 8
    for (int n = 0; n < kPairs; ++n) {
      add_to<8>(x, y, 2 * n, first_half<8>(sums[n]));
      add_to<8>(x, y, 2 * n + 1, second_half<8>(sums[n]));
    }
  }
#endif

  // y += scale · total, of N lanes of a row.
  template <int N>
  void add_to(const float* x, float* y, int n, Vec<N> total) const {
    const int row = rows[n];
    if (row < 0) return;
    if (any_nan<N>(total)) total = without_zeros<N>(x, n);
    float* to = y + static_cast<size_t>(row) * static_cast<size_t>(stride);
    store<N>(to, load<N>(to) + all<N>(scales == nullptr ? 1.0f : scales[row]) * total);
  }

  template <int N>
  __attribute__((noinline, cold)) Vec<N> without_zeros(const float* x, int n) const {
    Vec<N> sum{};
    for (int k = n; k < steps * kRows; k += kRows)
      if (numbers[k] != 0.0f) sum += numbers[k] * load<N>(x + offsets[k]);
    return sum;
  }

  template <int N, int K>
  static inline void add(const float* from, float number, Vec<N> (&sums)[K]) {
    if (K == 2) asm("" : "+r"(from));  // computed once: a multiply-accumulate with an index is two instructions
    const Vec<N> factor = all<N>(number);
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) sums[k] += factor * load<N>(from + k * N);
  }
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "places are read two at a time");
};

}  // namespace dopant

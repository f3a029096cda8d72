// Activations as whole numbers of a few bytes: one in fast, three or four in exact.
//
// x ≈ scale · X with one scale for a lane's whole vector. X plus half of its range is a number of D digits of 8 bits,
// d_0 the highest, so that W x = scale · Σ_i 256^(D-1-i) · W d_i, less 128 · row sums where i = 0: the dot instruction
// wants unsigned times signed bytes, and its sums are whole numbers.
#pragma once

#include <algorithm>
#include <cmath>

#include "vec.hpp"

namespace dopant {

constexpr int kByteZero = 128;  // the first digit of zero
constexpr int kMostByteColumns = 1 << 16;  // of more, a sum of products could exceed 32 bits

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

constexpr int kMostDigits = 4;

// Exponents of the numbers of a vector, with their offset of 127: of the largest, 255 if a value is not finite, and on
// average over those that are not zero. An average of magnitudes would follow a single large one.
struct Exponents {
  int largest, mean;

  Exponents(const float* x, int count) {
    __m512i most = _mm512_setzero_si512(), sum = most, zeros = most;
    const auto add = [&](__m512i bits) __attribute__((always_inline)) {
      const __m512i size = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)), exponent = _mm512_srli_epi32(size, 23);
      most = _mm512_max_epi32(most, exponent);
      sum = _mm512_add_epi32(sum, exponent);
      zeros = _mm512_mask_sub_epi32(zeros, _mm512_testn_epi32_mask(size, size), zeros, _mm512_set1_epi32(-1));
    };
    int i = 0;
    for (; i + 16 <= count; i += 16) add(_mm512_loadu_si512(x + i));
    if (i < count) add(_mm512_maskz_loadu_epi32(lanes_left(count - i), x + i));
    largest = _mm512_reduce_max_epi32(most);
    mean = _mm512_reduce_add_epi32(sum) / std::max(1, (count + 15) / 16 * 16 - _mm512_reduce_add_epi32(zeros));
  }
};

// Where x is cut, and how many digits each strip has room for: a multiple of 64.
struct Strips {
  const int32_t* edges;  // count + 1
  int count, room;

  int columns() const { return edges[count]; }
};

// Of 64 numbers in four registers one byte each, counted from the lowest.
inline __m512i bytes_of(const __m512i (&numbers)[4], int which) {
  alignas(64) static constexpr int32_t kFours[16] = {  // 0, 4, 8 … 124, twice
      0x0c080400, 0x1c181410, 0x2c282420, 0x3c383430, 0x4c484440, 0x5c585450, 0x6c686460, 0x7c787470,
      0x0c080400, 0x1c181410, 0x2c282420, 0x3c383430, 0x4c484440, 0x5c585450, 0x6c686460, 0x7c787470};
  const __m512i order = _mm512_add_epi8(_mm512_load_si512(kFours), _mm512_set1_epi8(static_cast<char>(which)));
  const __m512i lower = _mm512_permutex2var_epi8(numbers[0], order, numbers[1]);
  const __m512i upper = _mm512_permutex2var_epi8(numbers[2], order, numbers[3]);
  return _mm512_mask_mov_epi8(lower, 0xffffffff00000000ull, upper);
}

// Whole numbers of D digits: the i-th of all of x in bytes[i], strip by strip, each filled up with those of 0.
template <int D>
inline void to_digits(const float* x, Strips strips, float factor, uint8_t* const* bytes) {
  const __m512i half = _mm512_set1_epi32(static_cast<int32_t>(1u << (8 * D - 1)));
  const auto number_of = [=](const float* from, int left) __attribute__((always_inline)) {
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes_left(left), from), _mm512_set1_ps(factor));
    __m512i number = _mm512_cvtps_epi32(scaled);
    if constexpr (D > 1 && D < 4) number = _mm512_min_epi32(number, _mm512_set1_epi32((1 << (8 * D - 1)) - 1));  // it was rounded up
    return _mm512_add_epi32(number, half);
  };
  size_t to = 0;
  for (int strip = 0; strip < strips.count; ++strip) {
    const float* from = x + strips.edges[strip];
    int left = strips.edges[strip + 1] - strips.edges[strip];
    for (const size_t end = to + static_cast<size_t>(strips.room); to < end; to += 64, from += 64, left -= 64) {
      __m512i numbers[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) numbers[k] = number_of(from + 16 * k, left - 16 * k);
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d) _mm512_store_si512(bytes[d] + to, bytes_of(numbers, D - 1 - d));
    }
  }
}

struct Digits {
  int count;    // of each number; 0 if a value of x is not finite
  float scale;  // of the numbers
  bool all;     // that is left of x

  // For fast: one digit.
  static Digits one(const float* x, Strips strips, uint8_t* const* bytes) {
    const float most = largest_size(x, strips.columns());
    if (!std::isfinite(most)) return {0, 0.0f, true};
    const float scale = most > 1e-30f ? most / 127.0f : 1.0f;
    to_digits<1>(x, strips, 1.0f / scale, bytes);
    return {1, scale, true};
  }

  // For exact: three digits, or four, such that half a unit of the lowest is 2^-19 of the numbers' average size at most,
  // as the logarithm goes. Scales are powers of two, so nothing else is rounded. Where four are not enough, x is done in
  // turns: the numbers within 2^-12 of the largest come first, and `left`, which may be x, has zeros in their places. Whole
  // registers of it are written. (Those just above 2^-12, if negative, may err by twice as much: all lower digits are high
  // then, and their sum is rounded before the first one's is added.)
  static Digits enough(const float* x, Strips strips, uint8_t* const* bytes, float* room, float* left) {
    const int count = strips.columns();
    constexpr int kThree = 5, kFour = 12, kLeast = 36;  // of numbers that small, 2^-90, 2^-122 may be rounded away
    const Exponents exponents(x, count);
    if (exponents.largest == 255) return {0, 0.0f, true};
    const int above = std::max(exponents.largest + 1, kLeast), spread = above - exponents.mean;  // x < 2^(above - 127)
    const auto power = [=](int exponent) { return std::ldexp(1.0f, exponent); };
    if (exponents.largest == 0 || spread <= kThree) {
      to_digits<3>(x, strips, power(23 + 127 - above), bytes);
      return {3, power(above - 127 - 23), true};
    }
    const bool all = spread <= kFour || above == kLeast;
    const __m512 limit = _mm512_set1_ps(all ? 0.0f : power(above - 127 - kFour)), zero = _mm512_setzero_ps();
    for (int i = 0; i < count; i += 16) {
      const __m512 v = _mm512_maskz_loadu_ps(lanes_left(count - i), x + i);
      const __mmask16 now = _mm512_cmp_ps_mask(_mm512_abs_ps(v), limit, _CMP_GE_OQ);
      _mm512_storeu_ps(room + i, _mm512_mask_mov_ps(zero, now, v));
      _mm512_storeu_ps(left + i, _mm512_mask_mov_ps(v, now, zero));
    }
    to_digits<4>(room, strips, power(31 + 127 - above), bytes);
    return {4, power(above - 127 - 31), all};
  }
};

#endif

}  // namespace dopant

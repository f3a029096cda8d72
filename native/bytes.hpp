// Activations as whole numbers of a few bytes: one in fast, three or four in exact.
//
// x ≈ scale · X with one scale for a lane's whole vector. X plus half of its range is a number of D digits of 8 bits,
// d_0 the highest, so that W x = scale · Σ_i 256^(D-1-i) · W d_i, less 128 · row sums where i = 0: the dot instruction
// wants unsigned times signed bytes, and its sums are exact.
#pragma once

#include <algorithm>
#include <cmath>

#include "vec.hpp"

namespace dopant {

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
constexpr bool kBytes = true;
#else
constexpr bool kBytes = false;
#endif
constexpr int kByteZero = 128;  // the first digit of zero
constexpr int kMostByteColumns = 1 << 16;  // of more, a sum of products could exceed 32 bits

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

constexpr int kMostDigits = 4;

// A mask of the first of 16 lanes, as many as are left.
inline __mmask16 lanes_left(int left) { return left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1u); }

// The magnitudes of a vector: the largest as bits, so that a NaN counts as larger than any number, and the mean of those
// that are not zero.
struct Magnitudes {
  int32_t largest;
  float mean;

  Magnitudes(const float* x, int count) {
    __m512i most = _mm512_setzero_si512();
    __m512 sum = _mm512_setzero_ps();
    int others = 0;
    for (int i = 0; i < count; i += 16) {
      const __m512i size = _mm512_and_si512(_mm512_maskz_loadu_epi32(lanes_left(count - i), x + i), _mm512_set1_epi32(0x7fffffff));
      most = _mm512_max_epi32(most, size);
      sum = _mm512_add_ps(sum, _mm512_castsi512_ps(size));
      others += __builtin_popcount(_mm512_test_epi32_mask(size, size));
    }
    largest = _mm512_reduce_max_epi32(most);
    mean = _mm512_reduce_add_ps(sum) / static_cast<float>(std::max(1, others));
  }
};

// Whole numbers of D digits: the i-th of all of x in bytes[i], which has room for whole registers and is filled up with
// zeros.
template <int D>
inline void to_digits(const float* x, int count, float factor, uint8_t* const* bytes) {
  const __m512i half = _mm512_set1_epi32(static_cast<int32_t>(1u << (8 * D - 1)));
  for (int i = 0; i < (count + 63) / 64 * 64; i += 16) {
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes_left(count - i), x + i), _mm512_set1_ps(factor));
    __m512i number = _mm512_cvtps_epi32(scaled);
    if (D > 1 && D < 4) number = _mm512_min_epi32(number, _mm512_set1_epi32((1 << (8 * D - 1)) - 1));  // it was rounded up
    number = _mm512_add_epi32(number, half);
#pragma GCC unroll 4
    for (int d = 0; d < D; ++d)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes[d] + i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(number, 8 * (D - 1 - d))));
  }
}

struct Digits {
  int count;    // of each number; 0 if they cannot stand for x
  float scale;  // of the numbers

  // For fast: one digit, none if a value is not finite.
  static Digits one(const float* x, int count, uint8_t* const* bytes) {
    const Magnitudes sizes(x, count);
    if (sizes.largest >= 0x7f800000) return {0, 0.0f};
    float most;
    std::memcpy(&most, &sizes.largest, 4);
    const float scale = most > 1e-30f ? most / 127.0f : 1.0f;
    to_digits<1>(x, count, 1.0f / scale, bytes);
    return {1, scale};
  }

  // For exact: so many that what rounding takes, half a unit of the lowest digit, is 2^-20 of the mean magnitude at most,
  // less than the sums of floats lose. Scales are powers of two, so nothing else is rounded. None where four digits do
  // not do: a value is not finite, or the largest is thousands of times the mean, or all are tiny.
  static Digits enough(const float* x, int count, uint8_t* const* bytes) {
    const Magnitudes sizes(x, count);
    const int exponent = sizes.largest == 0 ? 0 : (sizes.largest >> 23) - 126;  // x < 2^exponent
    if (sizes.largest >= 0x7f800000 || exponent < -80) return {0, 0.0f};
    const float limit = std::ldexp(1.0f, exponent);
    if (sizes.largest == 0 || limit <= 16.0f * sizes.mean) {
      to_digits<3>(x, count, std::ldexp(1.0f, 23 - exponent), bytes);
      return {3, std::ldexp(1.0f, exponent - 23)};
    }
    if (limit > 4096.0f * sizes.mean) return {0, 0.0f};
    to_digits<4>(x, count, std::ldexp(1.0f, 31 - exponent), bytes);
    return {4, std::ldexp(1.0f, exponent - 31)};
  }
};

#endif

}  // namespace dopant

// Activations in 8 bits (the fast mode).
//
// x ≈ scale · (u - 128) with one scale for a lane's whole vector, so that W x = scale · (W u - 128 · row sum): the dot
// instruction wants unsigned times signed bytes.
#pragma once

#include "vec.hpp"

namespace dopant {

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
constexpr bool kBytes = true;
#else
constexpr bool kBytes = false;
#endif
constexpr int kByteZero = 128;  // the byte that stands for zero
constexpr int kMostByteColumns = 1 << 16;  // of more, a sum of products could exceed 32 bits

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

// One vector of `count` floats as bytes; its scale, or a negative number if a value is not finite. `bytes` has room for
// whole registers and is filled up with kByteZero.
inline float to_bytes(const float* x, int count, uint8_t* bytes) {
  const __m512 sign = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff));
  __m512i largest = _mm512_setzero_si512();  // as integers, so that a NaN counts as larger than any number
  for (int i = 0; i < count; i += 16) {
    const __mmask16 mask = count - i >= 16 ? 0xffff : (__mmask16)((1u << (count - i)) - 1u);
    const __m512 v = _mm512_and_ps(_mm512_maskz_loadu_ps(mask, x + i), sign);
    largest = _mm512_max_epi32(largest, _mm512_castps_si512(v));
  }
  const int32_t bits = _mm512_reduce_max_epi32(largest);
  if (bits >= 0x7f800000) return -1.0f;
  float most;
  std::memcpy(&most, &bits, 4);
  const float scale = most > 1e-30f ? most / 127.0f : 1.0f;
  const __m512 factor = _mm512_set1_ps(1.0f / scale);
  const __m512i zero = _mm512_set1_epi32(kByteZero);
  for (int i = 0; i < (count + 63) / 64 * 64; i += 16) {
    const int left = count - i;
    const __mmask16 mask = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1u);
    const __m512i level = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i), _mm512_cvtepi32_epi8(_mm512_add_epi32(level, zero)));
  }
  return scale;
}

#endif

}  // namespace dopant

// Numbers of x from places that lie anywhere, a register of them.
#pragma once

#include <cstring>

#include "vec.hpp"

namespace dopant {

template <int N>
inline Vec<N> gathered(const float* from, const uint16_t* at) {
  Vec<N> v;
  for (int lane = 0; lane < N; ++lane) v[lane] = from[at[lane]];
  return v;
}

#if defined(__AVX2__)
// Loads decide how fast, and the gather instruction takes longer than these: four places in one, then each number in all
// lanes, of which blends, that many ports can do, keep one.
template <>
inline Vec<8> gathered<8>(const float* from, const uint16_t* at) {
  uint64_t lower, upper;
  std::memcpy(&lower, at, 8);
  std::memcpy(&upper, at + 4, 8);
  const auto four = [from](uint64_t places) __attribute__((always_inline)) {
    const auto number = [from](uint64_t place) { return _mm256_broadcast_ss(from + place); };
    const __m256 even = _mm256_blend_ps(number(places & 0xffff), number(places >> 32 & 0xffff), 0x44);
    const __m256 odd = _mm256_blend_ps(number(places >> 16 & 0xffff), number(places >> 48), 0x88);
    return _mm256_blend_ps(even, odd, 0xaa);
  };
  return (Vec<8>)_mm256_blend_ps(four(lower), four(upper), 0xf0);
}
#endif

#if defined(__AVX512F__)
template <>
inline Vec<16> gathered<16>(const float* from, const uint16_t* at) {
  return join<8>(gathered<8>(from, at), gathered<8>(from, at + 8));
}
#endif

}  // namespace dopant

// Vectors of floats, by the compilers' vector extension: the same source serves SSE, AVX2, AVX-512 and NEON.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace dopant {

#if defined(__AVX512F__)
constexpr int W = 16;  // floats a register
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

template <int N>
struct Lanes {
  typedef float Float __attribute__((vector_size(N * 4)));
  typedef int32_t Int __attribute__((vector_size(N * 4)));
  typedef float Unaligned __attribute__((vector_size(N * 4), aligned(4), may_alias));
};
template <int N>
using Vec = typename Lanes<N>::Float;
template <int N>
using IntVec = typename Lanes<N>::Int;

template <int N>
inline Vec<N> load(const float* p) {
  return *reinterpret_cast<const typename Lanes<N>::Unaligned*>(p);
}
template <int N>
inline void store(float* p, Vec<N> v) {
  *reinterpret_cast<typename Lanes<N>::Unaligned*>(p) = v;
}
template <int N>
inline Vec<N> all(float v) {
  return Vec<N>{} + v;
}
template <int N>
inline float sum(Vec<N> v) {
  float total = 0.0f;
  for (int i = 0; i < N; ++i) total += v[i];
  return total;
}

// The first `count` lanes of a full register, the others zero / left alone.
inline Vec<W> load_first(const float* p, int count) {
#if defined(__AVX512F__)
  return (Vec<W>)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1u), p);
#else
  Vec<W> v{};
  std::memcpy(&v, p, sizeof(float) * static_cast<size_t>(count));
  return v;
#endif
}
inline void store_first(float* p, Vec<W> v, int count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1u), (__m512)v);
#else
  std::memcpy(p, &v, sizeof(float) * static_cast<size_t>(count));
#endif
}

}  // namespace dopant

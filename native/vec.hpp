// Vectors of floats, by the compilers' vector extension: the same source serves SSE, AVX2, AVX-512 and NEON.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__SSE2__)
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
  return v - Vec<N>{};  // minus, not plus: the compiler may then drop the zero, whatever v's sign
}
// Of the numbers of a, then of b, those with these indices: N of any, or all in their order, or half of a in a row.
template <int N, int... I>
inline Vec<sizeof...(I)> shuffled(Vec<N> a, Vec<N> b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, I...);
#else
  if constexpr (sizeof...(I) == N) return __builtin_shuffle(a, b, IntVec<N>{I...});  // that of one size is all they have
  const Vec<N> both[] = {a, b};
  constexpr int indices[] = {I...};
  return load<sizeof...(I)>(reinterpret_cast<const float*>(both) + indices[0]);
#endif
}
// Two vectors as one, and half of one.
template <int N, int... I>
inline Vec<2 * N> join(Vec<N> a, Vec<N> b, std::integer_sequence<int, I...>) {
  return shuffled<N, I...>(a, b);
}
template <int N>
inline Vec<2 * N> join(Vec<N> a, Vec<N> b) {
  return join<N>(a, b, std::make_integer_sequence<int, 2 * N>());
}
template <int N, int First, int... I>
inline Vec<N> part(Vec<2 * N> v, std::integer_sequence<int, I...>) {
  return shuffled<2 * N, First + I...>(v, v);
}
template <int N>
inline Vec<N> first_half(Vec<2 * N> v) {
  return part<N, 0>(v, std::make_integer_sequence<int, N>());
}
template <int N>
inline Vec<N> second_half(Vec<2 * N> v) {
  return part<N, N>(v, std::make_integer_sequence<int, N>());
}

template <int N>
inline float sum(Vec<N> v) {
  if constexpr (N > 4) return sum<N / 2>(first_half<N / 2>(v) + second_half<N / 2>(v));
  if constexpr (N == 4) return (v[0] + v[2]) + (v[1] + v[3]);
}

template <int N>
inline bool any_nan(Vec<N> v) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q) != 0;
#endif
#if defined(__AVX__)
  if constexpr (N == 8) return _mm256_movemask_ps(_mm256_cmp_ps((__m256)v, (__m256)v, _CMP_UNORD_Q)) != 0;
#endif
#if defined(__SSE2__)
  if constexpr (N == 4) return _mm_movemask_ps(_mm_cmpunord_ps((__m128)v, (__m128)v)) != 0;
#endif
  for (int i = 0; i < N; ++i)
    if (v[i] != v[i]) return true;
  return false;
}

// The smaller or larger of x and a limit; a NaN stays.
template <int N>
inline Vec<N> at_most(Vec<N> x, float limit) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return (Vec<N>)_mm512_min_ps(_mm512_set1_ps(limit), (__m512)x);
#endif
  return x > limit ? all<N>(limit) : x;
}
template <int N>
inline Vec<N> at_least(Vec<N> x, float limit) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return (Vec<N>)_mm512_max_ps(_mm512_set1_ps(limit), (__m512)x);
#endif
  return x < limit ? all<N>(limit) : x;
}

// Eight-bit integers as floats.
template <int N>
inline Vec<N> widen(const float* p) {
  return load<N>(p);
}
template <int N>
inline Vec<N> widen(const int8_t* p) {
#if defined(__AVX512F__)
  if constexpr (N == 16)
    return (Vec<N>)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#endif
#if defined(__AVX2__)
  if constexpr (N == 8)
    return (Vec<N>)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#endif
#if defined(__SSE2__)
  if constexpr (N == 4) {
    int32_t four;
    std::memcpy(&four, p, 4);
    const __m128i twice = _mm_unpacklo_epi8(_mm_cvtsi32_si128(four), _mm_cvtsi32_si128(four));
    return (Vec<N>)_mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(twice, twice), 24));
  }
#endif
  Vec<N> v;
  for (int i = 0; i < N; ++i) v[i] = p[i];
  return v;
}

// As many bytes as a register has floats, as 32-bit integers.
inline IntVec<W> widen_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
  return (IntVec<W>)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
  return (IntVec<W>)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#elif defined(__SSE2__)
  int32_t four;
  std::memcpy(&four, p, 4);
  const __m128i zero = _mm_setzero_si128();
  return (IntVec<W>)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero), zero);
#else
  IntVec<W> v;
  for (int i = 0; i < W; ++i) v[i] = p[i];
  return v;
#endif
}

// to (rows, lanes) = from (rows), the same in all lanes; zeros where `from` is null.
template <int N>
inline void spread_lanes(const float* from, int rows, float* to, int lanes) {
  for (int r = 0; r < rows; ++r)
    for (int lane = 0; lane < lanes; lane += N) store<N>(to + static_cast<size_t>(r) * lanes + lane, all<N>(from[r]));
}
inline void spread(const float* from, int rows, float* to, int lanes) {
  if (from == nullptr)
    std::memset(to, 0, sizeof(float) * static_cast<size_t>(rows) * lanes);
  else if (lanes == 1)
    std::memcpy(to, from, sizeof(float) * static_cast<size_t>(rows));
  else if (lanes % W == 0)
    spread_lanes<W>(from, rows, to, lanes);
  else
    spread_lanes<4>(from, rows, to, lanes);
}

#if defined(__AVX512F__)
// A mask of the first of 16 lanes, as many as are left.
inline __mmask16 lanes_left(int left) { return left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1u); }

// Of each lane the larger one of `most` and the magnitude of x, as integers: so a NaN counts as larger than any number.
inline __m512i larger_size(__m512i most, __m512 x) {
  return _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)));
}
inline bool all_finite(__m512i most) { return _mm512_reduce_max_epi32(most) < 0x7f800000; }

// The largest magnitude; not finite if any number is not.
inline float largest_size(const float* x, int count) {
  __m512i largest = _mm512_setzero_si512();
  for (int i = 0; i < count; i += 16) largest = larger_size(largest, _mm512_maskz_loadu_ps(lanes_left(count - i), x + i));
  const int32_t bits = _mm512_reduce_max_epi32(largest);
  float size;
  std::memcpy(&size, &bits, sizeof size);
  return size;
}
#endif

#if defined(__AVX2__) && !defined(__AVX512F__)
// A mask of the first `count` of 8 lanes.
inline __m256i first_lanes(int count) {
  alignas(32) static constexpr int32_t kMasks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMasks + 8 - count));
}
#endif

// The first `count` lanes of a full register, the others zero / left alone.
inline Vec<W> load_first(const float* p, int count) {
#if defined(__AVX512F__)
  return (Vec<W>)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1u), p);
#elif defined(__AVX2__)
  return (Vec<W>)_mm256_maskload_ps(p, first_lanes(count));
#else
  Vec<W> v{};
  std::memcpy(&v, p, sizeof(float) * static_cast<size_t>(count));
  return v;
#endif
}
inline void store_first(float* p, Vec<W> v, int count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1u), (__m512)v);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, first_lanes(count), (__m256)v);
#else
  std::memcpy(p, &v, sizeof(float) * static_cast<size_t>(count));
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// The largest magnitude; not finite if any number is not.
inline float largest_size(const float* x, int count) {
  __m256i largest = _mm256_setzero_si256();  // as integers: so a NaN counts as larger than any number
  for (int i = 0; i < count; i += 8) {
    const Vec<8> numbers = count - i >= 8 ? load<8>(x + i) : load_first(x + i, count - i);
    largest = _mm256_max_epi32(largest, _mm256_and_si256((__m256i)numbers, _mm256_set1_epi32(0x7fffffff)));
  }
  int32_t bits = 0;
  for (int lane = 0; lane < 8; ++lane) bits = std::max(bits, ((IntVec<8>)largest)[lane]);
  float size;
  std::memcpy(&size, &bits, sizeof size);
  return size;
}
#endif

// As `widen`, of `count` numbers; of eight-bit ones a whole register is read.
inline Vec<W> widen_first(const float* p, int count) { return load_first(p, count); }
inline Vec<W> widen_first(const int8_t* p, int) { return widen<W>(p); }

}  // namespace dopant

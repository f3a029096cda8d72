// A sparse matrix row by row, for many lanes, with 16-bit activations (fast): half of the float kernel's loads.
//
// x's lanes are scaled to whole numbers X of 16 bits, values q to f q with a power of two f that a row has to itself. The
// processor's rounding multiplication gives (f q X + 2^14) >> 15; sums of these in 16 bits cannot overflow, as f is such
// that the |f q| of a row add up to 32000 at most. What a row of n products loses is n/2 units at most, less than what
// 8-bit activations would lose: Σ|q| / 254 of the largest x, for n up to 126. Longer rows are cut.
#pragma once

#include "sparse_rows.hpp"

namespace dopant {

#if defined(__AVX512BW__)
constexpr bool kShorts = true;

inline int32_t both(const Shifted* value) {
  int32_t bits;
  std::memcpy(&bits, value, 4);
  return bits;
}

struct Shorts {  // 2 · W lanes
  __m512i v;
  static Shorts zero() { return {_mm512_setzero_si512()}; }
  Shorts operator+(Shorts other) const { return {_mm512_add_epi16(v, other.v)}; }
  Shorts plus(const Shifted* value, const char* x) const {  // + value · x / 2^15
    const __m512i factor = _mm512_set1_epi32(both(value));
    return {_mm512_add_epi16(v, _mm512_mulhrs_epi16(factor, _mm512_load_si512(x)))};
  }
  Vec<W> low() const { return (Vec<W>)_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(v))); }
  Vec<W> high() const { return (Vec<W>)_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(v, 1))); }
  static void round(Vec<W> low, Vec<W> high, int16_t* to) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32((__m512)low)));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + W), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32((__m512)high)));
  }
};

// 2 · W lanes of x as 16-bit numbers (columns, 2 · W), and what turns sums into floats; false if a value is not finite.
inline bool to_shorts(const float* x, int columns, int stride, int16_t* shorts, Vec<W>* back) {
  IntVec<W> most[2] = {};  // as integers, so that a NaN counts as larger than any number
  for (int j = 0; j < columns; ++j)
    for (int k = 0; k < 2; ++k) {
      const IntVec<W> size = (IntVec<W>)load<W>(x + static_cast<size_t>(j) * stride + k * W) & 0x7fffffff;
      most[k] = size > most[k] ? size : most[k];
    }
  Vec<W> factor[2];
  for (int k = 0; k < 2; ++k) {
    for (int lane = 0; lane < W; ++lane)
      if (most[k][lane] >= 0x7f800000) return false;
    Vec<W> largest = (Vec<W>)most[k];
    largest = largest < 1e-30f ? all<W>(1.0f) : largest;  // not so small that scales become denormal, which is slow
    factor[k] = 32766.0f / largest;
    back[k] = largest * (32768.0f / 32766.0f);
  }
  for (int j = 0; j < columns; ++j) {
    const float* from = x + static_cast<size_t>(j) * stride;
    Shorts::round(load<W>(from) * factor[0], load<W>(from + W) * factor[1], shorts + static_cast<size_t>(j) * 2 * W);
  }
  return true;
}

// As `SparseRows::add_rows`, but `unit` too counts for each row.
__attribute__((noinline)) inline void add_short_rows(const char* x, const uint16_t* offset, const Shifted* value, int length,
                                                     const int32_t* row, size_t count, const float* scales,
                                                     const float* unit, const Vec<W>* back, float* y, size_t stride) {
  for (const int32_t* end = row + count; row < end; ++row, ++unit) {
    Shorts sums[4] = {Shorts::zero(), Shorts::zero(), Shorts::zero(), Shorts::zero()};
    int i = 0;
    for (; i + 4 <= length; i += 4, offset += 4, value += 4) {
      uint64_t four;
      std::memcpy(&four, offset, 8);
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) sums[u] = sums[u].plus(value + u, x + (four >> 16 * u & 0xffff) * (W / 4));
    }
    if (i < length) {
      for (int u = 0; u < 2; ++u) sums[u] = sums[u].plus(value + u, x + offset[u] * size_t{W / 4});
      offset += 2, value += 2;
    }
    const Shorts total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    const Vec<W> scale = all<W>(scales[*row] * *unit);
    float* to = y + *row * stride;
    store<W>(to, load<W>(to) + scale * back[0] * total.low());
    store<W>(to + W, load<W>(to + W) + scale * back[1] * total.high());
  }
}

// y (rows, 2 · W lanes) += scale[row] · (this x); false, and y as it was, if a value of x is not finite.
inline bool apply_short(const SparseRows<Shifted>& matrix, const float* scales, const float* x, float* y, int stride,
                        Arena& arena) {
  Arena::Scope scope(arena);
  int16_t* shorts = arena.take<int16_t>(static_cast<size_t>(matrix.columns) * 2 * W);
  Vec<W> back[2];
  if (!to_shorts(x, matrix.columns, stride, shorts, back)) return false;
  matrix.each_part(shorts, 2 * W * sizeof(int16_t), [&](const SparseRows<Shifted>::Part& part) {
    add_short_rows(part.x, part.offset, part.value, part.length, matrix.rows.data() + part.first, part.count, scales,
                   matrix.extra.data() + part.first, back, y, static_cast<size_t>(stride));
  });
  return true;
}

#else
constexpr bool kShorts = false;

inline bool apply_short(const SparseRows<Shifted>&, const float*, const float*, float*, int, Arena&) { return false; }
#endif

}  // namespace dopant

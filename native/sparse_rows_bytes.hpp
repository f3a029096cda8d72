// A sparse matrix row by row, for many lanes, with 8-bit values and activations (fast).
//
// x lies as bytes, 16 lanes of a column together. The lanes of four columns are interleaved to [lane][column], and one
// dot instruction adds up the four products of each lane: 64 multiply-accumulates for four loads and four shuffles.
#pragma once

#include "bytes.hpp"
#include "sparse_rows.hpp"

namespace dopant {

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

inline __m512i four_columns(const uint8_t* x, const uint16_t* column, size_t stride, __m512i interleave) {
  auto lanes_of_column = [&](int k) { return _mm_load_si128(reinterpret_cast<const __m128i*>(x + column[k] * stride)); };
  __m512i four = _mm512_castsi128_si512(lanes_of_column(0));
  four = _mm512_inserti32x4(four, lanes_of_column(1), 1);
  four = _mm512_inserti32x4(four, lanes_of_column(2), 2);
  four = _mm512_inserti32x4(four, lanes_of_column(3), 3);
  return _mm512_permutexvar_epi8(interleave, four);
}

// Four values in every lane; as a broadcast from memory, which keeps the shuffle unit free.
inline __m512i four_values(const int8_t* value) {
  return _mm512_castps_si512(_mm512_set1_ps(*reinterpret_cast<const UnalignedFloat*>(value)));
}

// K groups of 16 lanes. x (columns, K · 16) bytes; y's rows lie `stride` apart, of which `count` lanes are there.
template <int K>
inline void byte_rows(const SparseRows<int8_t, uint16_t>& matrix, const float* scales, const uint8_t* x,
                      const float* lane_scale, float* y, int stride, int count) {
  alignas(64) uint8_t places[64];
  for (int k = 0; k < 64; ++k) places[k] = static_cast<uint8_t>(k % 4 * 16 + k / 4);
  const __m512i interleave = _mm512_load_si512(places);
  const uint16_t* column = matrix.columns.data();
  const int8_t* value = matrix.values.data();
  size_t at = 0;
  for (const auto& run : matrix.runs)
    for (int n = 0; n < run.count; ++n, ++at) {
      __m512i total[K];
#pragma GCC unroll 2
      for (int k = 0; k < K; ++k) total[k] = _mm512_set1_epi32(-128 * matrix.sums[at]);
      for (int i = 0; i < run.length; i += 4, column += 4, value += 4) {
        const __m512i values = four_values(value);
#pragma GCC unroll 2
        for (int k = 0; k < K; ++k)
          total[k] = _mm512_dpbusd_epi32(total[k], four_columns(x + k * 16, column, K * 16, interleave), values);
      }
      const int row = matrix.rows[at];
      float* to = y + static_cast<size_t>(row) * stride;
#pragma GCC unroll 2
      for (int k = 0; k < K; ++k) {
        const Vec<16> product = (Vec<16>)_mm512_cvtepi32_ps(total[k]) * (load<16>(lane_scale + k * 16) * scales[row]);
        store_first(to + k * 16, load_first(to + k * 16, count) + product, count);
      }
    }
}

// y (rows, lanes) += scale[row] · (this x); false where bytes cannot stand for x (a value that is not finite).
inline bool apply_bytes(const SparseRows<int8_t, uint16_t>& matrix, const float* scales, const float* x, float* y,
                        int lanes, Arena& arena) {
  Arena::Scope scope(arena);
  const int width = matrix.width, count = std::min(lanes, 16);
  uint8_t* bytes = arena.take<uint8_t>(static_cast<size_t>(width) * 32);
  float* lane_scale = arena.take<float>(static_cast<size_t>(lanes) + 16);
  float* lane_factor = arena.take<float>(static_cast<size_t>(lanes) + 16);
  const float* from = x;
  int stride = lanes;
  if (lanes < 16) {  // 4 or 8 lanes are filled up to 16
    float* full = arena.take<float>(static_cast<size_t>(width) * 16);
    for (int j = 0; j < width; ++j) store<16>(full + j * 16, load_first(x + static_cast<size_t>(j) * lanes, lanes));
    from = full;
    stride = 16;
  }
  for (int lane = 0; lane < lanes; lane += 16) {  // all or none: y is added to
    __m512 factor, scale;
    if (!lane_scales(from + lane, width, stride, &factor, &scale)) return false;
    _mm512_storeu_ps(lane_scale + lane, scale);
    _mm512_storeu_ps(lane_factor + lane, factor);
  }
  for (int lane = 0; lane < lanes;) {
    const int groups = lanes - lane >= 32 ? 2 : 1;
    for (int k = 0; k < groups; ++k) {
      const __m512 factor = _mm512_loadu_ps(lane_factor + lane + k * 16);
      for (int j = 0; j < width; ++j) {
        const float* values = from + static_cast<size_t>(j) * stride + lane + k * 16;
        const __m512i level = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(values), factor));
        const __m512i shifted = _mm512_add_epi32(level, _mm512_set1_epi32(128));
        _mm_store_si128(reinterpret_cast<__m128i*>(bytes + (j * groups + k) * 16), _mm512_cvtepi32_epi8(shifted));
      }
    }
    if (groups == 2)
      byte_rows<2>(matrix, scales, bytes, lane_scale + lane, y + lane, lanes, 16);
    else
      byte_rows<1>(matrix, scales, bytes, lane_scale + lane, y + lane, lanes, count);
    lane += 16 * groups;
  }
  return true;
}

#else

inline bool apply_bytes(const SparseRows<int8_t, uint16_t>&, const float*, const float*, float*, int, Arena&) {
  return false;
}

#endif

template <class T, class Index>
inline bool apply_bytes(const SparseRows<T, Index>&, const float*, const float*, float*, int, Arena&) {
  return false;
}

}  // namespace dopant

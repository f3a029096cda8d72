// Activations in 8 bits (the fast mode), and the dense product with them.
//
// x ≈ scale · (u - 128) with one scale for a lane's whole vector, so that W x = scale · (W u - 128 · row sum): the dot
// instruction wants unsigned times signed bytes.
#pragma once

#include <cmath>
#include <vector>

#include "vec.hpp"
#include "weight.hpp"

namespace dopant {

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
constexpr bool kBytes = true;
#else
constexpr bool kBytes = false;
#endif
constexpr int kMostByteColumns = 1 << 16;  // of more, a sum of products could exceed 32 bits

inline std::vector<int32_t> row_sums(const int8_t* values, int rows, int columns) {
  std::vector<int32_t> sums(static_cast<size_t>(rows));
  for (int r = 0; r < rows; ++r)
    for (int j = 0; j < columns; ++j) sums[r] += values[static_cast<size_t>(r) * columns + j];
  return sums;
}

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

// One vector of `count` floats as bytes; its scale, or a negative number if a value is not finite. `bytes` has room for
// whole registers and is filled up with 128, which stands for zero.
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
  const __m512i zero = _mm512_set1_epi32(128);
  for (int i = 0; i < (count + 63) / 64 * 64; i += 16) {
    const int left = count - i;
    const __mmask16 mask = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1u);
    const __m512i level = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i), _mm512_cvtepi32_epi8(_mm512_add_epi32(level, zero)));
  }
  return scale;
}

inline bool dense_bytes_one(const int8_t* values, const float* scales, const int32_t* sums, int rows, int columns,
                            const float* x, float* y) {
  Arena& arena = Arena::of_this_thread();
  Arena::Scope scope(arena);
  const int padded = (columns + 63) / 64 * 64;
  uint8_t* bytes = arena.take<uint8_t>(static_cast<size_t>(padded));
  const float scale = to_bytes(x, columns, bytes);
  if (scale < 0.0f) return false;
  const __mmask64 last = ~__mmask64{0} >> (padded - columns);
  constexpr int R = 4;
  for (int row = 0; row < rows; row += R) {
    __m512i total[R] = {};
    const int8_t* from[R];
    for (int r = 0; r < R; ++r) from[r] = values + static_cast<size_t>(std::min(row + r, rows - 1)) * columns;
    int j = 0;
    for (; j + 64 < padded; j += 64) {
      const __m512i u = _mm512_load_si512(bytes + j);
      for (int r = 0; r < R; ++r) total[r] = _mm512_dpbusd_epi32(total[r], u, _mm512_loadu_si512(from[r] + j));
    }
    const __m512i u = _mm512_load_si512(bytes + j);
    for (int r = 0; r < R; ++r)
      total[r] = _mm512_dpbusd_epi32(total[r], u, _mm512_maskz_loadu_epi8(last, from[r] + j));
    for (int r = 0; r < R && row + r < rows; ++r) {
      const int32_t dot = _mm512_reduce_add_epi32(total[r]) - 128 * sums[row + r];
      y[row + r] += scale * scales[row + r] * static_cast<float>(dot);
    }
  }
  return true;
}

// For 16 lanes from x on (a feature's lanes lie `stride` apart from the next's): the factors to bytes and back, or false
// if a value is not finite.
inline bool lane_scales(const float* x, int features, int stride, __m512* to_bytes, __m512* from_bytes) {
  const __m512 sign = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff));
  __m512i most = _mm512_setzero_si512();
  for (int j = 0; j < features; ++j) {
    const __m512 v = _mm512_and_ps(_mm512_loadu_ps(x + static_cast<size_t>(j) * stride), sign);
    most = _mm512_max_epi32(most, _mm512_castps_si512(v));
  }
  if (_mm512_reduce_max_epi32(most) >= 0x7f800000) return false;
  const __m512 largest = _mm512_max_ps(_mm512_castsi512_ps(most), _mm512_set1_ps(1e-30f));
  *to_bytes = _mm512_div_ps(_mm512_set1_ps(127.0f), largest);
  *from_bytes = _mm512_div_ps(largest, _mm512_set1_ps(127.0f));
  return true;
}

// Lanes of 16: groups of four features lie together, [feature / 4][lane][feature % 4], so that one instruction does
// four features of sixteen lanes with a broadcast group of four weights.
inline bool dense_bytes_many(const int8_t* values, const float* scales, const int32_t* sums, int rows, int columns,
                             const float* x, float* y, int lanes) {
  Arena& arena = Arena::of_this_thread();
  Arena::Scope scope(arena);
  const int groups = (columns + 3) / 4;
  uint8_t* bytes = arena.take<uint8_t>(static_cast<size_t>(groups) * lanes * 4);
  float* lane_scale = arena.take<float>(static_cast<size_t>(lanes));
  for (int lane = 0; lane < lanes; lane += 16) {
    __m512 factor, scale;
    if (!lane_scales(x + lane, columns, lanes, &factor, &scale)) return false;
    _mm512_storeu_ps(lane_scale + lane, scale);
    for (int g = 0; g < groups; ++g) {
      __m512i packed = _mm512_setzero_si512();
      for (int k = 0; k < 4; ++k) {
        __m512i level = _mm512_set1_epi32(128);
        if (4 * g + k < columns) {
          const __m512 v = _mm512_loadu_ps(x + static_cast<size_t>(4 * g + k) * lanes + lane);
          level = _mm512_add_epi32(level, _mm512_cvtps_epi32(_mm512_mul_ps(v, factor)));
        }
        packed = _mm512_or_si512(packed, _mm512_slli_epi32(level, 8 * k));
      }
      _mm512_storeu_si512(bytes + (static_cast<size_t>(g) * lanes + lane) * 4, packed);
    }
  }
  constexpr int R = 12;
  const int whole = columns / 4, rest = columns % 4;
  for (int lane = 0; lane < lanes; lane += 16) {
    const uint8_t* u = bytes + static_cast<size_t>(lane) * 4;
    for (int row = 0; row < rows; row += R) {
      const int count = std::min(R, rows - row);
      __m512i total[R] = {};
      const int8_t* from[R];
      for (int r = 0; r < R; ++r) from[r] = values + static_cast<size_t>(row + std::min(r, count - 1)) * columns;
      for (int g = 0; g < whole; ++g) {
        const __m512i four = _mm512_loadu_si512(u + static_cast<size_t>(g) * lanes * 4);
        for (int r = 0; r < R; ++r) {
          int32_t weights;
          std::memcpy(&weights, from[r] + 4 * g, 4);
          total[r] = _mm512_dpbusd_epi32(total[r], four, _mm512_set1_epi32(weights));
        }
      }
      if (rest != 0) {
        const __m512i four = _mm512_loadu_si512(u + static_cast<size_t>(whole) * lanes * 4);
        for (int r = 0; r < R; ++r) {
          int32_t weights = 0;
          std::memcpy(&weights, from[r] + 4 * whole, static_cast<size_t>(rest));
          total[r] = _mm512_dpbusd_epi32(total[r], four, _mm512_set1_epi32(weights));
        }
      }
      const __m512 scale = _mm512_loadu_ps(lane_scale + lane);
      for (int r = 0; r < count; ++r) {
        const __m512i dot = _mm512_sub_epi32(total[r], _mm512_set1_epi32(128 * sums[row + r]));
        float* out = y + static_cast<size_t>(row + r) * lanes + lane;
        const __m512 weight_scale = _mm512_mul_ps(scale, _mm512_set1_ps(scales[row + r]));
        _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), weight_scale, _mm512_loadu_ps(out)));
      }
    }
  }
  return true;
}

inline bool dense_bytes(const int8_t* values, const float* scales, const int32_t* sums, int rows, int columns,
                        const float* x, float* y, int lanes) {
  if (lanes == 1) return dense_bytes_one(values, scales, sums, rows, columns, x, y);
  if (lanes % 16 == 0) return dense_bytes_many(values, scales, sums, rows, columns, x, y, lanes);
  return false;
}

#else

inline bool dense_bytes(const int8_t*, const float*, const int32_t*, int, int, const float*, float*, int) {
  return false;
}

#endif

}  // namespace dopant

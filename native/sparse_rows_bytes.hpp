// A sparse matrix row by row, for 8, 16 or 32 lanes, with 8-bit activations (fast): four non-zeros an instruction.
//
// A column of x is a byte a lane. The columns of four non-zeros of a row are loaded beside each other and permuted, so
// that each lane's four bytes lie together; the dot instruction multiplies them by the four values and adds up. For 32
// lanes that is 9 loads, 6 shuffles and 2 dot instructions, where floats take 13 loads and 8 multiply-accumulates, and
// all of x lies in the first-level cache: 1300 columns in one tile instead of four.
#pragma once

#include "sparse_rows.hpp"

namespace dopant {

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

// L lanes of four columns: each lane's four bytes together, in `count` registers of N.
template <int L>
struct FourColumns {
  static constexpr int N = L == 8 ? 8 : 16, count = L / N;
  using Numbers = IntVec<N>;
  Numbers lanes[count];

  // Where the permute takes its bytes from: for 32 lanes from pairs of columns in two halves, else from four parts.
  static Numbers order() {
    alignas(64) uint8_t from[4 * N];
    for (int lane = 0; lane < N; ++lane)
      for (int k = 0; k < 4; ++k)
        from[4 * lane + k] = static_cast<uint8_t>(L == 32 ? k / 2 * 32 + 2 * lane + k % 2 : k * N + lane);
    Numbers result;
    std::memcpy(&result, from, sizeof(result));
    return result;
  }

  FourColumns(const char* x, const uint16_t* offset, Numbers order) {
    size_t place[4] = {offset[0], offset[1], offset[2], offset[3]};
    asm volatile("" : "+r"(place[0]), "+r"(place[1]), "+r"(place[2]), "+r"(place[3]));  // four loads beat one and shifts
    const auto column = [&](int k) { return x + place[k] * (L / 8); };
    const char *a = column(0), *b = column(1), *c = column(2), *d = column(3);
    if constexpr (L == 8) {
      const __m128i ab = _mm_unpacklo_epi64(load_8(a), load_8(b)), cd = _mm_unpacklo_epi64(load_8(c), load_8(d));
      const __m256i abcd = _mm256_inserti128_si256(_mm256_castsi128_si256(ab), cd, 1);
      lanes[0] = (Numbers)_mm256_permutexvar_epi8((__m256i)order, abcd);
    } else if constexpr (L == 16) {
      const __m512i ab = _mm512_inserti32x4(_mm512_castsi128_si512(load_16(a)), load_16(b), 1);
      const __m512i abcd = _mm512_inserti32x4(_mm512_inserti32x4(ab, load_16(c), 2), load_16(d), 3);
      lanes[0] = (Numbers)_mm512_permutexvar_epi8((__m512i)order, abcd);
    } else {
      const __m512i ac = _mm512_inserti64x4(_mm512_castsi256_si512(load_32(a)), load_32(c), 1);
      const __m512i bd = _mm512_inserti64x4(_mm512_castsi256_si512(load_32(b)), load_32(d), 1);
      lanes[0] = (Numbers)_mm512_permutexvar_epi8((__m512i)order, _mm512_unpacklo_epi8(ac, bd));
      lanes[1] = (Numbers)_mm512_permutexvar_epi8((__m512i)order, _mm512_unpackhi_epi8(ac, bd));
    }
  }

  void add_products(const int8_t* values, Numbers* sums) const {
    int32_t four;
    std::memcpy(&four, values, 4);
    for (int k = 0; k < count; ++k) {
      if constexpr (N == 8)
        sums[k] = (Numbers)_mm256_dpbusd_epi32((__m256i)sums[k], (__m256i)lanes[k], _mm256_set1_epi32(four));
      else
        sums[k] = (Numbers)_mm512_dpbusd_epi32((__m512i)sums[k], (__m512i)lanes[k], _mm512_set1_epi32(four));
    }
  }

 private:
  static __m128i load_8(const char* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }
  static __m128i load_16(const char* p) { return _mm_load_si128(reinterpret_cast<const __m128i*>(p)); }
  static __m256i load_32(const char* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }
};

// L lanes of x as bytes (columns, L), and their scales; false if a value is not finite. Of 32 lanes those of both halves
// take turns, eight by eight: FourColumns<32> then has them in their order.
template <int L>
inline bool to_byte_lanes(const float* x, int columns, int stride, char* bytes, float* scales) {
  constexpr int N = FourColumns<L>::N, K = FourColumns<L>::count;
  IntVec<N> most[K] = {};  // as integers, so that a NaN counts as larger than any number
  for (int j = 0; j < columns; ++j)
    for (int k = 0; k < K; ++k) {
      const IntVec<N> size = (IntVec<N>)load<N>(x + static_cast<size_t>(j) * stride + k * N) & 0x7fffffff;
      most[k] = size > most[k] ? size : most[k];
    }
  Vec<N> factor[K];
  for (int k = 0; k < K; ++k) {
    for (int lane = 0; lane < N; ++lane)
      if (most[k][lane] >= 0x7f800000) return false;
    Vec<N> largest = (Vec<N>)most[k];
    largest = largest < 1e-30f ? all<N>(1.0f) : largest;  // not so small that scales become denormal, which is slow
    factor[k] = 127.0f / largest;
    store<N>(scales + k * N, largest / 127.0f);
  }
  for (int j = 0; j < columns; ++j, bytes += L) {
    const float* from = x + static_cast<size_t>(j) * stride;
    __m128i levels[K];
    for (int k = 0; k < K; ++k) {
      const Vec<N> scaled = load<N>(from + k * N) * factor[k];
      if constexpr (N == 8)
        levels[k] = _mm256_cvtepi32_epi8(_mm256_cvtps_epi32((__m256)scaled));
      else
        levels[k] = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32((__m512)scaled));
      levels[k] = _mm_xor_si128(levels[k], _mm_set1_epi8(static_cast<char>(kByteZero)));
    }
    if constexpr (L == 8) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(bytes), levels[0]);
    } else if constexpr (L == 16) {
      _mm_store_si128(reinterpret_cast<__m128i*>(bytes), levels[0]);
    } else {
      _mm_store_si128(reinterpret_cast<__m128i*>(bytes), _mm_unpacklo_epi64(levels[0], levels[1]));
      _mm_store_si128(reinterpret_cast<__m128i*>(bytes + 16), _mm_unpackhi_epi64(levels[0], levels[1]));
    }
  }
  return true;
}

// As `SparseRows::add_rows`; `back` makes numbers of the sums of each lane.
template <int L>
__attribute__((noinline)) void add_byte_rows(const SparseRows<int8_t>::Part& part, const int32_t* row, const int32_t* start,
                                             const float* scales, const float* back, float* y, size_t stride) {
  using Four = FourColumns<L>;
  constexpr int N = Four::N;
  const typename Four::Numbers order = Four::order();
  const uint16_t* offset = part.offset;
  const int8_t* value = part.value;
  for (const int32_t* end = row + part.count; row < end; ++row, ++start) {
    IntVec<N> sums[2][Four::count] = {};  // of every other four
    for (auto& sum : sums[0]) sum += *start;
    auto add_four = [&](int which) __attribute__((always_inline)) {
      Four(part.x, offset, order).add_products(value, sums[which]);
      offset += 4, value += 4;
    };
    int left = part.length;
    for (; left >= 8; left -= 8) add_four(0), add_four(1);
    if (left > 0) add_four(0);
    float* to = y + *row * stride;
    for (int k = 0; k < Four::count; ++k) {
      const Vec<N> total = __builtin_convertvector(sums[0][k] + sums[1][k], Vec<N>);
      store<N>(to + k * N, load<N>(to + k * N) + scales[*row] * load<N>(back + k * N) * total);
    }
  }
}

// y (rows, L) += scale[row] · (this x); false, and y as it was, if a value of x is not finite. Rows of x and y lie
// `stride` apart.
template <int L>
inline bool apply_bytes(const SparseRows<int8_t>& matrix, const float* scales, const float* x, float* y, int stride,
                        Arena& arena) {
  Arena::Scope scope(arena);
  char* bytes = arena.take<char>(static_cast<size_t>(matrix.columns) * L);
  float back[L];
  if (!to_byte_lanes<L>(x, matrix.columns, stride, bytes, back)) return false;
  matrix.each_part(bytes, L, [&](const SparseRows<int8_t>::Part& part) {
    add_byte_rows<L>(part, matrix.rows.data() + part.first, matrix.extra.data() + part.first, scales, back, y,
                     static_cast<size_t>(stride));
  });
  return true;
}

#endif

}  // namespace dopant

// A sparse matrix row by row (CSR), for many lanes: a non-zero is one multiply-accumulate of whole vectors.
//
// Loads decide how fast: x's lanes, the value, the place in x. Columns are cut into tiles whose x stays in the
// first-level cache, and four places come in one load, as offsets that an address takes as they are. Rows of a tile come
// in the order of their length, so that the processor foresees where each ends; lengths are filled up with zeros to even
// ones, or multiples of four, and several sums are under way at a time, so that none waits for the one before.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <vector>

#include "arena.hpp"
#include "vec.hpp"

namespace dopant {

template <class T, class Index>
struct Entry {
  int32_t row;
  Index column;
  T value;
};

// A whole number of up to 8 bits times a power of two, twice, as a load alone then fills vectors of 16-bit numbers.
struct Shifted {
  int16_t first, second;
  explicit Shifted(int value = 0) : first(static_cast<int16_t>(value)), second(first) {}
};

// V: how values are kept, as float or Shifted (sparse_rows_short.hpp).
template <class V>
struct SparseRows {
  static constexpr int kTileBytes = 42 << 10;  // of x: what the first-level cache holds
  static constexpr bool kShifted = std::is_same_v<V, Shifted>;
  static constexpr int kTogether = 2;  // a row's length is a multiple of it
  static constexpr int kPlace = 16;    // what an offset counts for a column: x has this or a multiple
  static constexpr int kLeast = 32;  // bytes of a column of x
  static_assert(kTileBytes / kLeast * kPlace < 65536, "an offset within a tile has 16 bits");
  static constexpr int kLongest = 96;  // shifted values in a row: see sparse_rows_short.hpp

  struct Run {  // rows of one length
    int32_t length, count;
  };
  struct Tile {
    int32_t column, runs;
  };
  int columns = 0;
  std::vector<Tile> tiles;
  std::vector<Run> runs;      // tile after tile
  std::vector<int32_t> rows;  // run after run; a row comes twice if it is too long
  std::vector<float> extra;  // what the shifted values of each of `rows` are to be multiplied by
  AlignedVector<uint16_t> offsets;
  AlignedVector<V> values;

  size_t bytes() const {
    return tiles.size() * sizeof(Tile) + runs.size() * sizeof(Run) + (rows.size() + extra.size()) * 4 + offsets.size() * 2 +
           values.size() * sizeof(V);
  }

  // Entries in the order of rows, and of columns within a row. scales: one a row, null for none; floats are multiplied by
  // them. column_bytes: what x takes for a column.
  template <class T, class Index>
  static SparseRows from(const std::vector<Entry<T, Index>>& entries, const float* scales, int rows, int columns,
                         int column_bytes) {
    SparseRows result;
    result.columns = columns;
    std::vector<size_t> next(static_cast<size_t>(rows) + 1);
    for (const auto& entry : entries) ++next[static_cast<size_t>(entry.row) + 1];
    for (int r = 0; r < rows; ++r) next[r + 1] += next[r];
    const std::vector<size_t> ends(next.begin() + 1, next.end());
    const int widest = kTileBytes / std::max(kLeast, column_bytes);
    const int count = std::max(1, (columns + widest - 1) / widest), width = (columns + count - 1) / count;
    for (int first = 0; first < columns; first += width)
      result.add_tile(entries, scales, next, ends, first, std::min(width, columns - first));
    result.offsets.shrink_to_fit();
    result.values.shrink_to_fit();
    return result;
  }

  // y (rows, lanes) += this x. Rows of x and y lie `stride` apart.
  void apply(const float* x, float* y, int lanes, int stride, Arena& arena) const {
    int lane = 0;
    for (; lane + 2 * W <= lanes; lane += 2 * W) apply_lanes<2 * W>(x + lane, y + lane, stride, arena);
    for (; lane + W <= lanes; lane += W) apply_lanes<W>(x + lane, y + lane, stride, arena);
    for (; W > 8 && lane + 8 <= lanes; lane += 8) apply_lanes<8>(x + lane, y + lane, stride, arena);
    for (; lane < lanes; lane += 4) apply_lanes<4>(x + lane, y + lane, stride, arena);
  }

  // Some of `rows`, of one length, with their entries.
  struct Part {
    const char* x;  // of the tile
    const uint16_t* offset;
    const V* value;
    size_t first, count;  // of `rows`
    int length;
  };

  // f(part) for all of them, where x takes `column_bytes` a column.
  template <class F>
  void each_part(const void* x, size_t column_bytes, F f) const {
    const Run* run = runs.data();
    Part part{nullptr, offsets.data(), values.data(), 0, 0, 0};
    for (const Tile& tile : tiles) {
      part.x = static_cast<const char*>(x) + static_cast<size_t>(tile.column) * column_bytes;
      for (int k = 0; k < tile.runs; ++k, ++run) {
        part.count = static_cast<size_t>(run->count);
        part.length = run->length;
        f(part);
        part.first += part.count;
        part.offset += part.count * run->length;
        part.value += part.count * run->length;
      }
    }
  }

 private:
  struct Span {  // of the entries: a row within a tile, or a piece of it
    size_t begin, end;
    int32_t length() const { return static_cast<int32_t>((end - begin + kTogether - 1) / kTogether * kTogether); }
  };

  template <class T, class Index>
  void add_tile(const std::vector<Entry<T, Index>>& entries, const float* scales, std::vector<size_t>& next,
                const std::vector<size_t>& ends, int first, int width) {
    std::vector<Span> spans;
    for (size_t row = 0; row < ends.size(); ++row) {
      size_t begin = next[row], end = begin;
      while (end < ends[row] && static_cast<int>(entries[end].column) < first + width) ++end;
      next[row] = end;
      for (; kShifted && end - begin > kLongest; begin += kLongest) spans.push_back({begin, begin + kLongest});
      if (end > begin) spans.push_back({begin, end});
    }
    std::stable_sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.length() > b.length(); });
    tiles.push_back({first, 0});
    int length = 0;
    for (const Span& span : spans) {
      if (span.length() != length) runs.push_back({length = span.length(), 0}), ++tiles.back().runs;
      ++runs.back().count;
      rows.push_back(entries[span.begin].row);
      std::conditional_t<std::is_same_v<V, float>, float, int> factor = 1;
      if (std::is_same_v<V, float> && scales != nullptr) factor = scales[entries[span.begin].row];
      if constexpr (kShifted) {
        int sum = 0;
        for (size_t i = span.begin; i < span.end; ++i) sum += std::abs(static_cast<int>(entries[i].value));
        while (factor < 256 && 2 * factor * sum <= 32000) factor *= 2;
        extra.push_back(1.0f / static_cast<float>(factor));
      }
      for (size_t i = span.begin; i < span.begin + static_cast<size_t>(length); ++i) {
        const auto& entry = entries[std::min(i, span.end - 1)];
        offsets.push_back(static_cast<uint16_t>((static_cast<int>(entry.column) - first) * kPlace));
        values.push_back(i < span.end ? V(entry.value * factor) : V{});
      }
    }
  }

  // P lanes of x and y, whose rows lie `stride` apart.
  template <int P>
  void apply_lanes(const float* x, float* y, int stride, Arena& arena) const {
    constexpr int N = P < W ? P : W, K = P / N;
    Arena::Scope scope(arena);
    if (stride != P) {  // together, or half of the cache would stay empty
      float* packed = arena.take<float>(static_cast<size_t>(columns) * P);
      for (int j = 0; j < columns; ++j)
        for (int k = 0; k < K; ++k)
          store<N>(packed + static_cast<size_t>(j) * P + k * N, load<N>(x + static_cast<size_t>(j) * stride + k * N));
      x = packed;
    }
    each_part(x, P * sizeof(float), [&](const Part& part) {
      const int32_t* row = rows.data() + part.first;
      if constexpr (kPairs && P == 8)
        add_rows_of_8(part.x, part.offset, part.value, part.length, row, part.count, y, static_cast<size_t>(stride));
      else
        add_rows<N, K>(part.x, part.offset, part.value, part.length, row, part.count, y, static_cast<size_t>(stride));
    });
  }

  // y[row] += Σ value · x[place]. A function of its own, or the compiler runs out of registers.
  template <int N, int K>
  __attribute__((noinline)) static void add_rows(const char* x, const uint16_t* offset, const V* value, int length,
                                                 const int32_t* row, size_t count, float* y, size_t stride) {
    const bool odd = length % 4 != 0;
    for (const int32_t* end = row + count; row < end; ++row) {
      constexpr int S = 4 / K;
      Vec<N> sums[S][K] = {};
      float* to = y + *row * stride;
#pragma GCC unroll 2
      for (int k = 0; k < K; ++k) sums[0][k] = load<N>(to + k * N);
      for (int i = length; i >= 4; i -= 4, offset += 4, value += 4) {
        uint64_t four;
        std::memcpy(&four, offset, 8);
        const Values<N, K> of(value);
        add<N, K>(x, four & 0xffff, of.template get<0>(), sums[0]);
        add<N, K>(x, four >> 16 & 0xffff, of.template get<1>(), sums[1]);
        add<N, K>(x, four >> 32 & 0xffff, of.template get<2>(), sums[2 % S]);
        add<N, K>(x, four >> 48, of.template get<3>(), sums[3 % S]);
      }
      if (odd)
#pragma GCC unroll 2
        for (int u = 0; u < 2; ++u) add<N, K>(x, *offset++, all<N>(*value++), sums[u]);
#pragma GCC unroll 2
      for (int k = 0; k < K; ++k) {
        const Vec<N> both = sums[0][k] + sums[1][k];
        store<N>(to + k * N, S == 2 ? both : both + (sums[2 % S][k] + sums[3 % S][k]));
      }
    }
  }

  // The same for eight lanes, half a register: two non-zeros a multiply-accumulate, one in each half.
#if defined(__AVX512DQ__)
  static constexpr bool kPairs = true;

  __attribute__((noinline)) static void add_rows_of_8(const char* x, const uint16_t* offset, const V* value, int length,
                                                      const int32_t* row, size_t count, float* y, size_t stride) {
    const bool odd = length % 4 != 0;
    for (const int32_t* end = row + count; row < end; ++row) {
      __m512 sums[4] = {};
      const auto add_four = [&](__m512* sums) __attribute__((always_inline)) {
        const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(value));
        sums[0] = _mm512_fmadd_ps(in_halves<0>(four), two_columns(x, offset), sums[0]);
        sums[1] = _mm512_fmadd_ps(in_halves<2>(four), two_columns(x, offset + 2), sums[1]);
        offset += 4, value += 4;
      };
      int i = length;
      for (; i >= 8; i -= 8) add_four(sums), add_four(sums + 2);
      if (i >= 4) add_four(sums);
      if (odd) {
        const __m128i two = _mm_loadu_si64(value);
        sums[2] = _mm512_fmadd_ps(in_halves<0>(two), two_columns(x, offset), sums[2]);
        offset += 2, value += 2;
      }
      const __m512 both = (sums[0] + sums[1]) + (sums[2] + sums[3]);
      const Vec<8> total = (Vec<8>)_mm512_castps512_ps256(both) + (Vec<8>)_mm512_extractf32x8_ps(both, 1);
      float* to = y + *row * stride;
      store<8>(to, load<8>(to) + total);
    }
  }

  static __m512 two_columns(const char* x, const uint16_t* offset) {
    uint32_t two;  // in one load
    std::memcpy(&two, offset, 4);
    const auto column = [x](size_t place) { return _mm256_loadu_ps(reinterpret_cast<const float*>(x + 2 * place)); };
    return _mm512_insertf32x8(_mm512_castps256_ps512(column(two & 0xffff)), column(two >> 16), 1);
  }
  // Value I in the first half, the next one in the second.
  template <int I>
  static __m512 in_halves(__m128i values) {
    const __m512i from = _mm512_inserti32x8(_mm512_set1_epi32(I), _mm256_set1_epi32(I + 1), 1);
    return _mm512_permutexvar_ps(from, _mm512_castsi512_ps(_mm512_castsi128_si512(values)));
  }
#else
  static constexpr bool kPairs = false;
#endif

  // Four values, each spread over a register. Loads are short where x takes two of them a non-zero: there one load is
  // enough for the four, and permutes spread them.
  template <int N, int K>
  struct Values {
    explicit Values(const V* value) : value_(value) {}
    template <int I>
    Vec<N> get() const {
#if defined(__AVX512F__)
      if constexpr (N == 16 && K == 2)
        return (Vec<N>)_mm512_permutexvar_ps(_mm512_set1_epi32(I), _mm512_castps128_ps512(_mm_loadu_ps(value_)));
#endif
      return all<N>(value_[I]);
    }
    const V* value_;
  };

  template <int N, int K>
  static inline void add(const char* x, size_t offset, Vec<N> value, Vec<N> (&sums)[K]) {
    const char* place = x + offset * (N * K / 4);
    if (K == 2) asm("" : "+r"(place));  // computed once: a multiply-accumulate with an index is two instructions
    const float* from = reinterpret_cast<const float*>(place);
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) {
      Vec<N> lanes = load<N>(from + k * N);
#if defined(__AVX512VL__)
      if (K == 1) asm("" : "+v"(lanes));  // so that the multiply-accumulate loads, and spreads, the value
#endif
      sums[k] += value * lanes;
    }
  }
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "offsets are read four at a time");
};

}  // namespace dopant

// A sparse matrix row by row (CSR), for many lanes: a non-zero is one multiply-accumulate of whole vectors.
//
// Two loads (x's lanes, the value) feed one or two multiply-accumulates; four non-zeros are under way at a time, so that
// none waits for the sum of the one before, and rows are filled up to fours with zeros. Columns come in tiles whose x
// stays near, and the rows of a tile in the order of their length, so that the processor foresees where each ends.
//
// With 8-bit values and activations (fast), the lanes of four columns are interleaved, and the dot instruction adds up
// the four of each lane.
#pragma once

#include <algorithm>
#include <vector>

#include "arena.hpp"
#include "bytes.hpp"
#include "vec.hpp"

namespace dopant {

template <class T, class Index>
struct Entry {
  int32_t row;
  Index column;
  T value;
};

template <class T, class Index>
struct SparseRows {
  static constexpr int kTile = 1024;  // columns: 32 KiB of x at 8 lanes
  struct Run {                       // rows of one length in one tile
    int32_t length, count;           // the length a multiple of four
  };
  struct Tile {
    std::vector<Run> runs;
    std::vector<int32_t> rows;
    std::vector<int32_t> sums;  // of each row's values: bytes of x have an offset of 128
  };
  int width = 0;  // columns of the matrix
  std::vector<Tile> tiles;
  std::vector<Index> columns;  // tile after tile, row after row
  std::vector<T> values;

  size_t bytes() const {
    size_t total = columns.size() * sizeof(Index) + values.size() * sizeof(T);
    for (const Tile& tile : tiles) total += tile.runs.size() * sizeof(Run) + (tile.rows.size() + tile.sums.size()) * 4;
    return total;
  }

  // Entries in the order of rows, and of columns within a row.
  static SparseRows from(const std::vector<Entry<T, Index>>& entries, int column_count) {
    SparseRows result;
    result.width = column_count;
    for (int first = 0; first < column_count; first += kTile) {
      std::vector<std::vector<Entry<T, Index>>> rows;
      for (const auto& entry : entries) {
        const int column = static_cast<int>(entry.column);
        if (column < first || column >= first + kTile) continue;
        if (rows.empty() || rows.back().back().row != entry.row) rows.emplace_back();
        rows.back().push_back(entry);
      }
      std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
      Tile tile;
      for (const auto& row : rows) {
        const int32_t length = static_cast<int32_t>((row.size() + 3) / 4 * 4);
        if (tile.runs.empty() || tile.runs.back().length != length) tile.runs.push_back({length, 0});
        ++tile.runs.back().count;
        tile.rows.push_back(row.front().row);
        int32_t total = 0;
        for (const auto& entry : row) {
          result.columns.push_back(entry.column);
          result.values.push_back(entry.value);
          total += static_cast<int32_t>(entry.value);
        }
        if (sizeof(T) == 1) tile.sums.push_back(total);
        result.columns.resize(result.columns.size() + length - row.size(), row.back().column);
        result.values.resize(result.values.size() + length - row.size());
      }
      result.tiles.push_back(std::move(tile));
    }
    result.values.resize(result.values.size() + 64);  // whole registers are read
    return result;
  }

  // The same with x in bytes; false where they cannot stand for x (a value that is not finite).
  bool apply_bytes(const float* scales, const float* x, float* y, int lanes, Arena& arena) const;

  // y (rows, lanes) += scale[row] · (this x); scales may be null.
  void apply(const float* scales, const float* x, float* y, int lanes, Arena& arena) const {
    int lane = 0;
    if (lanes == 2 * W) return apply_lanes<W, 2, 2 * W>(scales, x, y, lanes, arena);
    if (lanes == 8) return apply_lanes<8 < W ? 8 : W, 8 < W ? 1 : 8 / W, 8>(scales, x, y, lanes, arena);
    for (; lane + 2 * W <= lanes; lane += 2 * W) apply_lanes<W, 2, 0>(scales, x + lane, y + lane, lanes, arena);
    for (; lane + W <= lanes; lane += W) apply_lanes<W, 1, 0>(scales, x + lane, y + lane, lanes, arena);
    if (lanes - lane == 8) apply_lanes<8 < W ? 8 : W, 1, 0>(scales, x + lane, y + lane, lanes, arena);
    if (lanes - lane == 4) apply_lanes<4, 1, 0>(scales, x + lane, y + lane, lanes, arena);
  }

 private:
  static constexpr int kAhead = 1024;  // 8-bit values are widened so many at a time: a load right behind its store waits

  // Stride: that of x and y where it is known beforehand, else 0.
  template <int N, int K, int Stride>
  void apply_lanes(const float* scales, const float* x, float* y, int lanes, Arena& arena) const {
    const int stride = Stride > 0 ? Stride : lanes;
    Arena::Scope scope(arena);
    const Index* column = columns.data();
    const T* packed = values.data();
    int longest = 0;
    for (const Tile& tile : tiles)
      if (!tile.runs.empty()) longest = std::max(longest, tile.runs.front().length);
    float* wide = sizeof(T) == 1 ? arena.take<float>(static_cast<size_t>(std::max(longest, kAhead)) + W) : nullptr;
    for (const Tile& tile : tiles) {
      const int32_t* row = tile.rows.data();
      for (const Run& run : tile.runs)
        for (int first = 0; first < run.count;) {
          const int count = sizeof(T) == 1 ? std::min(std::max(1, kAhead / run.length), run.count - first) : run.count;
          const int entries = count * run.length;
          const float* value = reinterpret_cast<const float*>(packed);
          if (sizeof(T) == 1) {
            for (int i = 0; i < entries; i += W) store<W>(wide + i, widen<W>(packed + i));
            value = wide;
          }
          for (int n = 0; n < count; ++n)
            add_row<N, K>(column + n * run.length, value + n * run.length, run.length,
                          scales == nullptr ? 1.0f : scales[row[n]], x, y + static_cast<size_t>(row[n]) * stride, stride);
          first += count;
          row += count;
          column += entries;
          packed += entries;
        }
    }
  }

  // y += scale · Σ value · x[column]
  template <int N, int K>
  static inline void add_row(const Index* column, const float* value, int length, float scale, const float* x, float* y,
                             size_t stride) {
    Vec<N> sums[4][K] = {};
    for (int i = 0; i < length; i += 4)
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) {
        const float* from = x + column[i + u] * stride;
        const Vec<N> factor = all<N>(value[i + u]);
#pragma GCC unroll 2
        for (int k = 0; k < K; ++k) sums[u][k] += factor * load<N>(from + k * N);
      }
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) {
      const Vec<N> total = (sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k]);
      store<N>(y + k * N, load<N>(y + k * N) + all<N>(scale) * total);
    }
  }
};

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

// For each non-zero 16 bytes of x, the lanes of its column; four of them are interleaved to [lane][column].
inline __m512i four_columns(const uint8_t* bytes, const uint16_t* column, __m512i interleave) {
  auto lanes_of_column = [&](int k) {
    return _mm_load_si128(reinterpret_cast<const __m128i*>(bytes + static_cast<size_t>(column[k]) * 16));
  };
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

template <class T, class Index>
bool SparseRows<T, Index>::apply_bytes(const float* scales, const float* x, float* y, int lanes, Arena& arena) const {
  if constexpr (sizeof(T) == 1 && sizeof(Index) == 2) {
    Arena::Scope scope(arena);
    alignas(64) uint8_t places[64];
    for (int k = 0; k < 64; ++k) places[k] = static_cast<uint8_t>(k % 4 * 16 + k / 4);
    const __m512i interleave = _mm512_load_si512(places), zero = _mm512_set1_epi32(128);
    uint8_t* bytes = arena.take<uint8_t>(static_cast<size_t>(width) * 16);
    float* full = lanes < 16 ? arena.take<float>(static_cast<size_t>(width) * 16) : nullptr;
    if (full != nullptr)  // 4 or 8 lanes are filled up to 16
      for (int j = 0; j < width; ++j)
        _mm512_store_ps(full + j * 16, (__m512)load_first(x + static_cast<size_t>(j) * lanes, lanes));
    for (int lane = 0; lane < lanes; lane += 16) {
      const float* from = full != nullptr ? full : x + lane;
      const int stride = full != nullptr ? 16 : lanes, count = lanes < 16 ? lanes : 16;
      __m512 factor, lane_scale;
      if (!lane_scales(from, width, stride, &factor, &lane_scale)) return false;
      for (int j = 0; j < width; ++j) {
        const __m512 v = _mm512_mul_ps(_mm512_loadu_ps(from + static_cast<size_t>(j) * stride), factor);
        const __m512i level = _mm512_add_epi32(_mm512_cvtps_epi32(v), zero);
        _mm_store_si128(reinterpret_cast<__m128i*>(bytes + j * 16), _mm512_cvtepi32_epi8(level));
      }
      const uint16_t* column = columns.data();
      const int8_t* value = values.data();
      for (const Tile& tile : tiles) {
        size_t at = 0;
        for (const Run& run : tile.runs)
          for (int n = 0; n < run.count; ++n, ++at) {
            __m512i even = _mm512_set1_epi32(-128 * tile.sums[at]), odd = _mm512_setzero_si512();
            int i = 0;
            for (; i + 8 <= run.length; i += 8, column += 8, value += 8) {
              even = _mm512_dpbusd_epi32(even, four_columns(bytes, column, interleave), four_values(value));
              odd = _mm512_dpbusd_epi32(odd, four_columns(bytes, column + 4, interleave), four_values(value + 4));
            }
            if (i < run.length) {
              even = _mm512_dpbusd_epi32(even, four_columns(bytes, column, interleave), four_values(value));
              column += 4;
              value += 4;
            }
            const int row = tile.rows[at];
            float* to = y + static_cast<size_t>(row) * lanes + lane;
            const Vec<W> dot = (Vec<W>)_mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
            store_first(to, load_first(to, count) + dot * ((Vec<W>)lane_scale * scales[row]), count);
          }
      }
    }
    return true;
  }
  return false;
}

#else

template <class T, class Index>
bool SparseRows<T, Index>::apply_bytes(const float*, const float*, float*, int, Arena&) const {
  return false;
}

#endif

}  // namespace dopant

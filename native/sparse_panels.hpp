// A sparse matrix in panels, for one lane: x is looked up in registers, never gathered from memory.
//
// A panel is a strip of columns whose x fits into a few registers, a block some rows of it. Within a block every row
// has the same number of slots, a byte of local column index and a value each; one register permute looks up a whole
// register of slots. Rows with more non-zeros than slots leave the rest to slices, rows with fewer hold zeros: the
// number of slots is chosen, block by block, to cost least.
//
//   floats (exact): 32 columns, blocks of 64 rows: 64 slots are 4 permutes and 4 multiply-accumulates
//   bytes  (fast): 256 columns, blocks of 16 rows: 64 slots are 2 permutes; the dot instruction adds up 4 of a row
#pragma once

#include <algorithm>
#include <vector>

#include "bytes.hpp"
#include "sparse_slices.hpp"

namespace dopant {

#if defined(__AVX512F__) && defined(__AVX512BW__)
constexpr bool kPanels = true;
#else
constexpr bool kPanels = false;
#endif

template <class T, class Index, bool Bytes>
struct SparsePanels {
  static constexpr int kWidth = Bytes ? 256 : 32;  // columns of a panel
  static constexpr int kHeight = Bytes ? 16 : 64;  // rows of a block
  static constexpr int kEach = Bytes ? 4 : 1;      // slots of a row in a unit of 64

  int rows = 0, columns = 0;
  std::vector<uint8_t> counts;   // of each panel and block: how many units
  std::vector<uint8_t> indices;  // unit after unit, 64 each
  std::vector<T> values;
  std::vector<int32_t> sums;  // of each row's values in units: bytes of x have an offset of 128
  SparseSlices<T, Index> rest;

  int panels() const { return (columns + kWidth - 1) / kWidth; }
  int blocks() const { return (rows + kHeight - 1) / kHeight; }
  size_t bytes() const {
    return counts.size() + indices.size() + values.size() * sizeof(T) + sums.size() * 4 + rest.bytes();
  }

  // Entries in the order of rows, and of columns within a row.
  static SparsePanels from(const std::vector<Entry<T, Index>>& entries, int rows, int columns) {
    SparsePanels result;
    result.rows = rows;
    result.columns = columns;
    std::vector<size_t> next(static_cast<size_t>(rows) + 1);
    for (const auto& entry : entries) ++next[entry.row + 1];
    for (int r = 0; r < rows; ++r) next[r + 1] += next[r];
    const std::vector<size_t> ends(next.begin() + 1, next.end());
    std::vector<Entry<T, Index>> rest;
    for (int panel = 0; panel < result.panels(); ++panel)
      for (int block = 0; block < result.blocks(); ++block) result.fill(entries, next, ends, panel, block, rest);
    std::stable_sort(rest.begin(), rest.end(), [](const auto& a, const auto& b) { return a.row < b.row; });
    result.rest = SparseSlices<T, Index>::from(rest);
    if (Bytes) {
      result.sums.assign(static_cast<size_t>(result.blocks()) * kHeight, 0);
      result.each_in_units([&](int row, Index, T value) { result.sums[row] += static_cast<int32_t>(value); });
    }
    result.indices.shrink_to_fit();
    result.values.shrink_to_fit();
    return result;
  }

  // f(row, column, value) for every entry that is not zero.
  template <class F>
  void each(F f) const {
    each_in_units(f);
    rest.each(f);
  }

  // y += scale[row] · (this x). False where bytes cannot stand for x (a value that is not finite).
  bool apply(const float* scales, const float* x, float* y) const {
    Arena& arena = Arena::of_this_thread();
    Arena::Scope scope(arena);
    if (!apply_units(scales, x, y, arena)) return false;
    rest.apply(scales, x, y);
    return true;
  }

 private:
  // The row within its block of the k-th slot of a unit, and where its index lies: of floats, a register holds the
  // indices of four groups of 16 rows, a byte each.
  static int row_of(int k) { return Bytes ? k / 4 : k; }
  static int index_place(int k) { return Bytes ? k : k % 16 * 4 + k / 16; }

  template <class F>
  void each_in_units(F f) const {
    size_t unit = 0, at = 0;
    for (int panel = 0; panel < panels(); ++panel)
      for (int block = 0; block < blocks(); ++block, ++at)
        for (int n = 0; n < counts[at]; ++n, unit += 64)
          for (int k = 0; k < 64; ++k)
            if (values[unit + k] != T{0})
              f(block * kHeight + row_of(k), static_cast<Index>(panel * kWidth + indices[unit + index_place(k)]),
                values[unit + k]);
  }

  void fill(const std::vector<Entry<T, Index>>& entries, std::vector<size_t>& next, const std::vector<size_t>& ends,
            int panel, int block, std::vector<Entry<T, Index>>& rest) {
    const int first = block * kHeight, height = std::min(kHeight, rows - first);
    int here[kHeight] = {};
    for (int r = 0; r < height; ++r) {
      size_t i = next[first + r];
      while (i < ends[first + r] && static_cast<int>(entries[i].column) < (panel + 1) * kWidth) ++i;
      here[r] = static_cast<int>(i - next[first + r]);
    }
    const int units = best_units(here, height);
    const size_t start = indices.size();
    counts.push_back(static_cast<uint8_t>(units));
    indices.resize(start + static_cast<size_t>(units) * 64);
    values.resize(start + static_cast<size_t>(units) * 64);
    for (int r = 0; r < height; ++r)
      for (int n = 0; n < here[r]; ++n) {
        const auto& entry = entries[next[first + r]++];
        if (n >= units * kEach) {
          rest.push_back(entry);
          continue;
        }
        const int k = r * kEach + n % kEach;
        const size_t unit = start + static_cast<size_t>(n / kEach) * 64;
        indices[unit + index_place(k)] = static_cast<uint8_t>(static_cast<int>(entry.column) - panel * kWidth);
        values[unit + k] = entry.value;
      }
  }

  // In cycles, measured: a unit costs 10 as floats, 5 as bytes; an entry left to the slices 0.8.
  static int best_units(const int* here, int height) {
    const int most = *std::max_element(here, here + height);
    int best = 0;
    double least = 1e30;
    for (int units = 0; units <= std::min(255, (most + kEach - 1) / kEach); ++units) {
      double cost = units * (Bytes ? 5.0 : 10.0);
      for (int r = 0; r < height; ++r) cost += 0.8 * std::max(0, here[r] - units * kEach);
      if (cost < least) best = units, least = cost;
    }
    return best;
  }

  bool apply_units(const float* scales, const float* x, float* y, Arena& arena) const;
};

#if defined(__AVX512F__) && defined(__AVX512BW__)

// 64 slots of a unit in four groups of 16 rows.
template <class T>
inline void float_units(const uint8_t* counts, const uint8_t* index, const T* value, const float* x, float* totals,
                        int panels, int blocks) {
  for (int panel = 0; panel < panels; ++panel) {
    const __m512 low = _mm512_load_ps(x + panel * 32), high = _mm512_load_ps(x + panel * 32 + 16);
    for (int block = 0; block < blocks; ++block) {
      float* total = totals + static_cast<size_t>(block) * 64;
      Vec<16> a = load<16>(total), b = load<16>(total + 16), c = load<16>(total + 32), d = load<16>(total + 48);
      for (int n = *counts++; n > 0; --n, index += 64, value += 64) {
        // The permute reads 5 bits of a lane: what lies above them, of the other groups, does not matter.
        const __m512i i = _mm512_loadu_si512(index);
        a += (Vec<16>)_mm512_permutex2var_ps(low, i, high) * widen<16>(value);
        b += (Vec<16>)_mm512_permutex2var_ps(low, _mm512_srli_epi32(i, 8), high) * widen<16>(value + 16);
        c += (Vec<16>)_mm512_permutex2var_ps(low, _mm512_srli_epi32(i, 16), high) * widen<16>(value + 32);
        d += (Vec<16>)_mm512_permutex2var_ps(low, _mm512_srli_epi32(i, 24), high) * widen<16>(value + 48);
      }
      store<16>(total, a);
      store<16>(total + 16, b);
      store<16>(total + 32, c);
      store<16>(total + 48, d);
    }
  }
}

#else

template <class T>
inline void float_units(const uint8_t*, const uint8_t*, const T*, const float*, float*, int, int) {}

#endif

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

inline void byte_units(const uint8_t* counts, const uint8_t* index, const int8_t* value, const uint8_t* x,
                       int32_t* totals, int panels, int blocks) {
  for (int panel = 0; panel < panels; ++panel) {
    const uint8_t* from = x + panel * 256;
    const __m512i a = _mm512_load_si512(from), b = _mm512_load_si512(from + 64);
    const __m512i c = _mm512_load_si512(from + 128), d = _mm512_load_si512(from + 192);
    for (int block = 0; block < blocks; ++block) {
      __m512i total = _mm512_load_si512(totals + static_cast<size_t>(block) * 16);
      for (int n = *counts++; n > 0; --n, index += 64, value += 64) {
        const __m512i i = _mm512_loadu_si512(index);  // 7 bits choose within a pair of registers, the eighth the pair
        const __m512i low = _mm512_permutex2var_epi8(a, i, b), high = _mm512_permutex2var_epi8(c, i, d);
        const __m512i u = _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(i), high);
        total = _mm512_dpbusd_epi32(total, u, _mm512_loadu_si512(value));
      }
      _mm512_store_si512(totals + static_cast<size_t>(block) * 16, total);
    }
  }
}

#else

inline float to_bytes(const float*, int, uint8_t*) { return -1.0f; }
inline void byte_units(const uint8_t*, const uint8_t*, const int8_t*, const uint8_t*, int32_t*, int, int) {}

#endif

template <class T, class Index, bool Bytes>
bool SparsePanels<T, Index, Bytes>::apply_units(const float* scales, const float* x, float* y, Arena& arena) const {
  const size_t padded = static_cast<size_t>(panels()) * kWidth, height = static_cast<size_t>(blocks()) * kHeight;
  if constexpr (Bytes) {
    uint8_t* bytes = arena.take<uint8_t>(padded);
    std::memset(bytes, 128, padded);
    const float scale = to_bytes(x, columns, bytes);
    if (scale < 0.0f) return false;
    int32_t* totals = arena.take<int32_t>(height);
    for (size_t r = 0; r < height; ++r) totals[r] = -128 * sums[r];
    byte_units(counts.data(), indices.data(), values.data(), bytes, totals, panels(), blocks());
    for (int r = 0; r < rows; ++r) y[r] += scale * scales[r] * static_cast<float>(totals[r]);
  } else {
    float* aligned = arena.take<float>(padded);
    std::memcpy(aligned, x, sizeof(float) * static_cast<size_t>(columns));
    std::memset(aligned + columns, 0, sizeof(float) * (padded - columns));
    float* totals = arena.take<float>(height);
    std::memset(totals, 0, sizeof(float) * height);
    float_units(counts.data(), indices.data(), values.data(), aligned, totals, panels(), blocks());
    if (scales == nullptr)
      for (int r = 0; r < rows; ++r) y[r] += totals[r];
    else
      for (int r = 0; r < rows; ++r) y[r] += scales[r] * totals[r];
  }
  return true;
}

}  // namespace dopant

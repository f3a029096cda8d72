// A sparse matrix in panels, for one lane: x is looked up in registers, never gathered from memory.
//
// A panel is a strip of columns whose x fits into two registers, a block 64 rows of it. Within a block every row has
// the same number of slots, a byte of local column index and a value each; a slot is looked up by one register permute.
// Rows with more non-zeros than slots spill the rest into a list, rows with fewer hold zeros: the number of slots is
// chosen, block by block, to cost least.
//
//   floats (exact): 32 columns, 16 rows a permute:   64 slots = 4 permutes + 4 multiply-accumulates
//   bytes  (fast): 128 columns, 64 slots a permute; the dot instruction adds up four slots of a row
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "bytes.hpp"
#include "sparse_rows.hpp"

namespace dopant {

#if defined(__AVX512F__) && defined(__AVX512BW__)
constexpr bool kPanels = true;
#else
constexpr bool kPanels = false;
#endif

template <class T, class Index>
struct SparsePanels {
  static constexpr int kBlock = 64;

  bool as_bytes = false;
  int rows = 0, columns = 0;
  std::vector<uint8_t> slots;    // of each panel and block: how many units of 64 index bytes and 64 values
  std::vector<uint8_t> indices;  // unit after unit
  std::vector<T> values;
  struct Spilled {
    int32_t row;
    Index column;
    T value;
  };
  std::vector<Spilled> spilled;
  std::vector<int32_t> sums;  // of a row's values in slots: bytes of x have an offset of 128

  int width() const { return as_bytes ? 128 : 32; }
  int panels() const { return (columns + width() - 1) / width(); }
  int blocks() const { return (rows + rows_of_block() - 1) / rows_of_block(); }
  int rows_of_block() const { return as_bytes ? 16 : kBlock; }
  size_t bytes() const {
    return slots.size() + indices.size() + values.size() * sizeof(T) + spilled.size() * sizeof(Spilled) + sums.size() * 4;
  }

  static SparsePanels from(const SparseRows<T, Index>& csr, int columns, bool as_bytes) {
    SparsePanels result;
    result.as_bytes = as_bytes;
    result.rows = static_cast<int>(csr.starts.size()) - 1;
    result.columns = columns;
    std::vector<int32_t> next(csr.starts.begin(), csr.starts.end() - 1);
    for (int panel = 0; panel < result.panels(); ++panel)
      for (int block = 0; block < result.blocks(); ++block) result.fill(csr, next, panel, block);
    // Neighbours in the list go to different rows: an addition need not wait for the one before.
    std::vector<int32_t> nth(static_cast<size_t>(result.rows)), place;
    for (const Spilled& s : result.spilled) place.push_back(nth[s.row]++);
    std::vector<size_t> order(result.spilled.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return place[a] < place[b]; });
    std::vector<Spilled> sorted;
    for (size_t i : order) sorted.push_back(result.spilled[i]);
    result.spilled = std::move(sorted);
    if (as_bytes) {
      result.sums.assign(static_cast<size_t>(result.blocks()) * 16, 0);
      result.add_sums();
    }
    result.spilled.shrink_to_fit();
    result.indices.shrink_to_fit();
    result.values.shrink_to_fit();
    return result;
  }

  // Back to rows, in no order of columns.
  SparseRows<T, Index> to_rows() const {
    std::vector<Spilled> entries = spilled;
    size_t unit = 0, at = 0;
    for (int panel = 0; panel < panels(); ++panel)
      for (int block = 0; block < blocks(); ++block, ++at)
        for (int n = 0; n < slots[at]; ++n, ++unit)
          for (int k = 0; k < 64; ++k) {
            const T value = values[unit * 64 + k];
            if (value == T{0}) continue;
            const int row = block * rows_of_block() + row_of_slot(k);
            const int column = panel * width() + indices[unit * 64 + index_place(k)];
            entries.push_back({row, static_cast<Index>(column), value});
          }
    std::stable_sort(entries.begin(), entries.end(), [](const Spilled& a, const Spilled& b) { return a.row < b.row; });
    SparseRows<T, Index> result;
    result.starts.assign(static_cast<size_t>(rows) + 1, 0);
    for (const Spilled& entry : entries) {
      ++result.starts[entry.row + 1];
      result.columns.push_back(entry.column);
      result.values.push_back(entry.value);
    }
    for (int r = 0; r < rows; ++r) result.starts[r + 1] += result.starts[r];
    return result;
  }

  // False where bytes cannot stand for x (a value that is not finite).
  bool apply(const float* scales, const float* x, float* y) const;

 private:
  // Of the k-th value of a unit: floats have 4 groups of 16 rows, bytes 16 rows of 4.
  int row_of_slot(int k) const { return as_bytes ? k / 4 : k; }
  // Where its index lies: for floats the four groups' indices share a register, a byte each.
  int index_place(int k) const { return as_bytes ? k : k % 16 * 4 + k / 16; }

  void fill(const SparseRows<T, Index>& csr, std::vector<int32_t>& next, int panel, int block) {
    const int height = rows_of_block(), first = block * height, each = as_bytes ? 4 : 1;
    const int end_column = std::min(columns, (panel + 1) * width());
    std::vector<int> counts(static_cast<size_t>(height));
    for (int r = 0; r < height && first + r < rows; ++r) {
      const int row = first + r;
      int end = next[row];
      while (end < csr.starts[row + 1] && static_cast<int>(csr.columns[end]) < end_column) ++end;
      counts[r] = end - next[row];
    }
    const int units = best_units(counts, each);
    slots.push_back(static_cast<uint8_t>(units));
    const size_t start = indices.size();
    indices.resize(start + static_cast<size_t>(units) * 64);
    values.resize(start + static_cast<size_t>(units) * 64);
    for (int r = 0; r < height && first + r < rows; ++r) {
      const int row = first + r;
      for (int n = 0; n < counts[r]; ++n, ++next[row]) {
        const Index column = csr.columns[next[row]];
        if (n >= units * each) {
          spilled.push_back({row, column, csr.values[next[row]]});
          continue;
        }
        const int k = as_bytes ? r * 4 + n % 4 : r;
        const size_t unit = start + static_cast<size_t>(n / each) * 64;
        indices[unit + index_place(k)] = static_cast<uint8_t>(column - panel * width());
        values[unit + k] = csr.values[next[row]];
      }
    }
  }

  // Measured: a unit costs about 10 cycles as floats, 3 as bytes; a spilled entry about 2.
  int best_units(const std::vector<int>& counts, int each) const {
    const int most = *std::max_element(counts.begin(), counts.end());
    int best = 0;
    double least = 1e30;
    for (int units = 0; units <= std::min(255, (most + each - 1) / each); ++units) {
      double cost = units * (as_bytes ? 3.0 : 10.0);
      for (int count : counts) cost += 2.0 * std::max(0, count - units * each);
      if (cost < least) best = units, least = cost;
    }
    return best;
  }

  void add_sums() {
    size_t unit = 0, at = 0;
    for (int panel = 0; panel < panels(); ++panel)
      for (int block = 0; block < blocks(); ++block, ++at)
        for (int n = 0; n < slots[at]; ++n, ++unit)
          for (int k = 0; k < 64; ++k)
            sums[block * 16 + k / 4] += static_cast<int32_t>(values[unit * 64 + k]);
  }

  void apply_floats(const float* scales, const float* x, float* y, Arena& arena) const;
  bool apply_bytes(const float* scales, const float* x, float* y, Arena& arena) const;
};

#if defined(__AVX512F__) && defined(__AVX512BW__)

inline __m512 panel_values(const float* p) { return _mm512_loadu_ps(p); }
inline __m512 panel_values(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

template <class T, class Index>
void SparsePanels<T, Index>::apply_floats(const float* scales, const float* x, float* y, Arena& arena) const {
  const int block_count = blocks(), panel_count = panels();
  float* padded = arena.take<float>(static_cast<size_t>(panel_count) * 32);
  std::memcpy(padded, x, sizeof(float) * static_cast<size_t>(columns));
  for (int j = columns; j < panel_count * 32; ++j) padded[j] = 0.0f;
  float* totals = arena.take<float>(static_cast<size_t>(block_count) * 64);
  std::memset(totals, 0, sizeof(float) * static_cast<size_t>(block_count) * 64);
  const uint8_t* count = slots.data();
  const uint8_t* index = indices.data();
  const T* value = values.data();
  for (int panel = 0; panel < panel_count; ++panel) {
    const __m512 low = _mm512_load_ps(padded + panel * 32), high = _mm512_load_ps(padded + panel * 32 + 16);
    for (int block = 0; block < block_count; ++block) {
      float* total = totals + static_cast<size_t>(block) * 64;
      __m512 a = _mm512_load_ps(total), b = _mm512_load_ps(total + 16);
      __m512 c = _mm512_load_ps(total + 32), d = _mm512_load_ps(total + 48);
      for (int n = *count++; n > 0; --n, index += 64, value += 64) {
        // The permute reads 5 bits of a lane: what lies above them, of the other groups, does not matter.
        const __m512i i = _mm512_loadu_si512(index);
        a = _mm512_fmadd_ps(_mm512_permutex2var_ps(low, i, high), panel_values(value), a);
        b = _mm512_fmadd_ps(_mm512_permutex2var_ps(low, _mm512_srli_epi32(i, 8), high), panel_values(value + 16), b);
        c = _mm512_fmadd_ps(_mm512_permutex2var_ps(low, _mm512_srli_epi32(i, 16), high), panel_values(value + 32), c);
        d = _mm512_fmadd_ps(_mm512_permutex2var_ps(low, _mm512_srli_epi32(i, 24), high), panel_values(value + 48), d);
      }
      _mm512_store_ps(total, a);
      _mm512_store_ps(total + 16, b);
      _mm512_store_ps(total + 32, c);
      _mm512_store_ps(total + 48, d);
    }
  }
  for (const Spilled& s : spilled) totals[s.row] += static_cast<float>(s.value) * x[s.column];
  if (scales == nullptr)
    for (int r = 0; r < rows; ++r) y[r] += totals[r];
  else
    for (int r = 0; r < rows; ++r) y[r] += scales[r] * totals[r];
}

#else

template <class T, class Index>
void SparsePanels<T, Index>::apply_floats(const float*, const float*, float*, Arena&) const {}

#endif

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

template <class T, class Index>
bool SparsePanels<T, Index>::apply_bytes(const float* scales, const float* x, float* y, Arena& arena) const {
  const int block_count = blocks(), panel_count = panels();
  uint8_t* bytes = arena.take<uint8_t>(static_cast<size_t>(panel_count) * 128);
  const float scale = to_bytes(x, columns, bytes);
  if (scale < 0.0f) return false;
  const int filled = (columns + 63) / 64 * 64;
  if (filled < panel_count * 128) std::memset(bytes + filled, 128, static_cast<size_t>(panel_count * 128 - filled));
  int32_t* totals = arena.take<int32_t>(static_cast<size_t>(block_count) * 16);
  for (int r = 0; r < block_count * 16; ++r) totals[r] = -128 * sums[r];
  const uint8_t* count = slots.data();
  const uint8_t* index = indices.data();
  const T* value = values.data();
  for (int panel = 0; panel < panel_count; ++panel) {
    const __m512i low = _mm512_load_si512(bytes + panel * 128), high = _mm512_load_si512(bytes + panel * 128 + 64);
    for (int block = 0; block < block_count; ++block) {
      __m512i total = _mm512_load_si512(totals + static_cast<size_t>(block) * 16);
      for (int n = *count++; n > 0; --n, index += 64, value += 64) {
        const __m512i u = _mm512_permutex2var_epi8(low, _mm512_loadu_si512(index), high);
        total = _mm512_dpbusd_epi32(total, u, _mm512_loadu_si512(value));
      }
      _mm512_store_si512(totals + static_cast<size_t>(block) * 16, total);
    }
  }
  for (const Spilled& s : spilled)
    totals[s.row] += static_cast<int32_t>(s.value) * (static_cast<int32_t>(bytes[s.column]) - 128);
  for (int r = 0; r < rows; ++r) y[r] += scale * scales[r] * static_cast<float>(totals[r]);
  return true;
}

#else

template <class T, class Index>
bool SparsePanels<T, Index>::apply_bytes(const float*, const float*, float*, Arena&) const {
  return false;
}

#endif

template <class T, class Index>
bool SparsePanels<T, Index>::apply(const float* scales, const float* x, float* y) const {
  Arena& arena = Arena::of_this_thread();
  Arena::Scope scope(arena);
  if constexpr (sizeof(T) == 1)
    if (as_bytes) return apply_bytes(scales, x, y, arena);
  apply_floats(scales, x, y, arena);
  return true;
}

}  // namespace dopant
